"""BiasNorm and Bypass of Zipformer (arXiv 2310.11230, sections 3.2 and 3.3): its normalisation and
its residual gate.
"""

from typing import Any

import torch
from torch import Tensor, nn

from dualasr_lib.model.zipformer.fused import run
from dualasr_lib.model.zipformer.masking import sequence_mask
from dualasr_lib.model.zipformer.regularise import limit_value
from dualasr_lib.model.zipformer.scheduled import Scheduled
from dualasr_lib.model.zipformer.training_aids import Aids

__all__ = ["BiasNorm", "Bypass"]

_TINY = 1e-20  # below every mean square of a signal


class BiasNorm(nn.Module):
    """x * exp(log_scale) / rms(x - bias): keeps some length information that LayerNorm removes.

    The scalar log_scale starts at 1 and is led back into [-1.5, 1.5] in training, as published.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.full((dim,), 1e-4))
        self.log_scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        scale = limit_value(self.log_scale, -1.5, 1.5, training=self.training)
        return run(_BiasNorm, x, self.bias, scale.exp())


class _BiasNorm(torch.autograd.Function):
    """x * r with r = scale / sqrt(m), m = mean((x - bias)^2): keeps x and r, not the chain.

    With gradient g and G = sum(g x) over the channels:  dx = g r - G r / (m C) (x - bias), dbias is
    minus the sum of dx's second term, dscale = sum(G r) / scale.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        inverse = (wide - bias).square_().mean(dim=-1, keepdim=True).clamp_(min=_TINY).rsqrt_()
        ctx.save_for_backward(x, bias, scale, inverse)
        return (wide * (inverse * scale)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, bias, scale, inverse = ctx.saved_tensors
        g = grads[0].to(inverse.dtype)
        total = (g * x).sum(dim=-1, keepdim=True)  # (..., 1)
        share = total * inverse.pow(3) * (scale / x.shape[-1])
        towards = (x - bias).mul_(share)
        to_bias = towards.flatten(0, -2).sum(dim=0)
        to_x = torch.addcmul(towards.neg_(), g, inverse * scale)
        return to_x.to(x.dtype), to_bias.to(bias.dtype), (total * inverse).sum().to(scale.dtype)


class Bypass(nn.Module):
    """before + (after - before) * c with one learnt c per channel, led into [floor, 1] in training.

    The floor falls from 0.9 to 0.2 over `warm_up` optimiser steps (published: 20,000), so that
    every module is used while the network is young. `skip` is the probability, in training, that an
    utterance keeps `before`.
    """

    def __init__(self, dim: int, aids: Aids, skip: Scheduled | None = None) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((dim,), 0.5))
        self.floor = aids.schedule((0, 0.9), (20000, 0.2))
        self.skip = aids.rate((0, 0.0)) if skip is None else skip

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Both (N, T, C) -> (N, T, C)."""
        scale: Tensor = self.scale
        if self.training:
            scale = limit_value(scale, self.floor.now(), 1.0)
            kept = sequence_mask(before, self.skip.now(), True)
            scale = scale if kept is None else scale * kept
        return run(_Mixed, before, after.to(before.dtype), scale.to(before.dtype))


class _Mixed(torch.autograd.Function):
    """torch.lerp, whose forward pass torch 1.13.1 computes number by number on a CPU."""

    @staticmethod
    def forward(ctx: Any, before: Tensor, after: Tensor, scale: Tensor) -> Tensor:
        change = after - before
        ctx.save_for_backward(change, scale)
        return torch.addcmul(before, change, scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        change, scale = ctx.saved_tensors
        (g,) = grads
        to_after = g * scale
        to_scale = change.mul(g).sum_to_size(scale.shape)
        return g - to_after, to_after, to_scale
