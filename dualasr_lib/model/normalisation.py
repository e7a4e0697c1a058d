"""BiasNorm and Bypass of Zipformer (arXiv 2310.11230, sections 3.2 and 3.3): its normalisation and
its residual gate.
"""

import torch
from torch import Tensor, nn

from dualasr_lib.model.scheduled import Scheduled

__all__ = ["BiasNorm", "Bypass"]


class BiasNorm(nn.Module):
    """x * exp(log_scale) / rms(x - bias): keeps some length information that LayerNorm removes.

    The scalar log_scale starts at 1 and is limited to [-1.5, 1.5] as published.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.full((dim,), 1e-4))
        self.log_scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        mean_square = (x - self.bias).square().mean(dim=-1, keepdim=True)
        scale = self.log_scale.clamp(-1.5, 1.5).exp()
        return x * (mean_square.clamp(min=1e-20).rsqrt() * scale)


class Bypass(nn.Module):
    """before + (after - before) * c with one learnt c per channel, c kept in [floor, 1].

    The floor falls from 0.9 to 0.2 over `warm_up` optimiser steps (published: 20,000), so that
    every module is used while the network is young.
    """

    def __init__(self, dim: int, warm_up: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((dim,), 0.5))
        self.floor = Scheduled((0, 0.9), (max(1, warm_up), 0.2))

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Both (..., C) -> (..., C)."""
        return torch.lerp(before, after, self.scale.clamp(self.floor.now(), 1.0))
