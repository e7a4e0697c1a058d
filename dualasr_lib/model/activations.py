"""SwooshL and SwooshR, the activation functions of Zipformer (arXiv 2310.11230, section 3.4), alone
and with the linear layer that follows them.

    SwooshL(x) = ln(1 + e^(x - 4)) - 0.08 x - 0.035          (feed-forward modules)
    SwooshR(x) = ln(1 + e^(x - 1)) - 0.08 x - 0.313261687    (convolution modules)

The layer before an activation adds its bias anyway, so it subtracts the shift (4 or 1) there, and
everything here takes the shifted input u. With s = 1 / (1 + e^u):

    SwooshL = -ln s - 0.08 u - 0.355        derivative 0.92 - s

A sigmoid and a logarithm cost a third of a softplus on a CPU, and s is all that the backward pass
needs. `swoosh_linear` keeps s and the activation, nothing else; the chain of elementary operations
keeps five such tensors. Above u = 85 the activation is constant, its derivative is not.
tests/model/test_activations.py holds the slow reference.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dualasr_lib.model.fused import run

__all__ = [
    "SWOOSH_L",
    "SWOOSH_R",
    "Pieces",
    "Swoosh",
    "compute_dtype",
    "dropout_mask",
    "negated_swoosh",
    "swoosh",
    "swoosh_linear",
]

_SLOPE = 0.08
_TINY = 1e-37  # its logarithm is finite
_PIECE = 2**18  # numbers worked on at a time: some passes over them stay inside the cache


class Swoosh(NamedTuple):
    """ln(1 + e^(x - shift)) - 0.08 x - offset."""

    shift: float
    offset: float

    @property
    def constant(self) -> float:
        """What is subtracted once x is written as u + shift."""
        return self.offset + _SLOPE * self.shift

    @property
    def steepest(self) -> float:
        """The derivative is this minus s."""
        return 1.0 - _SLOPE


SWOOSH_L = Swoosh(4.0, 0.035)
SWOOSH_R = Swoosh(1.0, 0.313261687)


def swoosh(u: Tensor, kind: Swoosh) -> Tensor:
    """The activation of x = u + kind.shift, any shape."""
    return run(_Activation, u, kind)


def swoosh_linear(u: Tensor, kind: Swoosh, weight: Tensor, bias: Tensor) -> Tensor:
    """linear(swoosh(u + kind.shift), weight, bias): u (N, T, H), weight (C, H), bias (C,)."""
    return run(_ActivationLinear, u, kind, weight, bias)


def dropout_mask(x: Tensor, channels: int, probability: float) -> Tensor:
    """(N, 1, H) dropout factors beside x (N, ...): one mask for all frames of a sequence."""
    ones = torch.ones(x.shape[0], 1, channels, device=x.device)
    return F.dropout(ones, probability).to(torch.promote_types(x.dtype, torch.float32))


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type that matrix products of `x` should have: autocast's, if it is on."""
    # a matrix product of nothing: autocast's own answer, the same call in every torch
    none = x.new_empty(0, 0)
    return torch.mm(none, none).dtype


def negated_swoosh(u: Tensor, kind: Swoosh) -> tuple[Tensor, Tensor]:
    """(s, -activation) of x = u + kind.shift, s = 1 / (1 + e^u), computed in float32 or better."""
    wide = u.float() if u.dtype in (torch.bfloat16, torch.float16) else u
    s = wide.neg().sigmoid_().clamp_(min=_TINY)
    return s, s.log().add_(wide, alpha=_SLOPE).add_(kind.constant)


class Pieces:
    """(sequences, frames) slices of contiguous parts of x (N, T, H) that a CPU's cache can hold."""

    def __init__(self, x: Tensor) -> None:
        batch, frames, channels = x.shape
        on_cpu = x.device.type == "cpu"
        self._shape = (batch, frames)
        self._rows = max(1, _PIECE // channels) if on_cpu else batch * max(1, frames)

    def __iter__(self) -> Iterator[tuple[slice, slice]]:
        (batch, frames), rows = self._shape, self._rows
        if frames >= rows:
            for number in range(batch):
                for start in range(0, frames, rows):
                    yield slice(number, number + 1), slice(start, start + rows)
            return
        step = rows // max(1, frames)
        for number in range(0, batch, step):
            yield slice(number, number + step), slice(0, frames)


class _Activation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, kind: Swoosh) -> Tensor:
        s, value = negated_swoosh(u, kind)
        ctx.save_for_backward(s.to(u.dtype))
        return value.neg_().to(u.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (s,) = ctx.saved_tensors
        return torch.rsub(s, 1.0 - _SLOPE).mul_(grads[0]), None


class _ActivationLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, kind: Swoosh, weight: Tensor, bias: Tensor) -> Tensor:
        dtype = compute_dtype(u)
        s, value = negated_swoosh(u, kind)
        rows = value.flatten(0, 1).to(dtype)
        y = torch.addmm(bias.to(dtype), rows, weight.to(dtype).t(), alpha=-1)
        ctx.save_for_backward(s.to(u.dtype), rows, weight)
        return y.reshape(*u.shape[:2], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        s, hidden, weight = ctx.saved_tensors
        rows = grads[0].flatten(0, 1).to(hidden.dtype)
        to_hidden = torch.rsub(s, 1.0 - _SLOPE)
        to_hidden.mul_((rows @ weight.to(rows.dtype)).reshape(s.shape))
        to_weight = (rows.t() @ hidden).neg_().to(weight.dtype)
        return to_hidden, None, to_weight, rows.sum(0).to(weight.dtype)
