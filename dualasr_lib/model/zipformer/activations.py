"""SwooshL and SwooshR, the activation functions of Zipformer (arXiv 2310.11230, section 3.4), alone
and with the linear layer that follows them.

    SwooshL(x) = ln(1 + e^(x - 4)) - 0.08 x - 0.035          (feed-forward modules)
    SwooshR(x) = ln(1 + e^(x - 1)) - 0.08 x - 0.313261687    (convolution modules)

The layer before an activation adds its bias anyway, so it subtracts the shift there: 4 or 1, and a
little more that makes the constant at the end vanish. Everything here takes the shifted input u.
With D = k + e^u and a k for each kind (see `Swoosh`):

    Swoosh = ln D - 0.08 u        derivative 0.92 - k / D

That is a quarter of a softplus' time on a CPU, and 1 / D is all that the backward pass needs.
`swoosh_linear` keeps it and the activation, nothing else; the chain of elementary operations keeps
five such tensors. Above u = 85 the activation falls and its derivative does not follow.
tests/model/test_activations.py holds the slow reference.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dualasr_lib.model.zipformer.fused import run
from dualasr_lib.model.zipformer.regularise import Balance, pushed

__all__ = [
    "SWOOSH_L",
    "SWOOSH_R",
    "Pieces",
    "Swoosh",
    "compute_dtype",
    "dropout_mask",
    "swoosh",
    "swoosh_linear",
    "swoosh_parts",
    "swoosh_slope",
]

_SLOPE = 0.08
_STEEPEST = 1.0 - _SLOPE  # the largest derivative
_HUGE = 1e37  # it and its inverse are finite
_PIECE = 2**20  # numbers worked on at a time: fewer make narrow products, more miss the cache


class Swoosh(NamedTuple):
    """ln(1 + e^(x - centre)) - 0.08 x - offset = ln(k + e^u) - 0.08 u with u = x - shift.

    With x - centre = u - ln k the left side is ln(k + e^u) - 0.08 u - 0.92 ln k - 0.08 centre -
    offset; k makes the last three terms cancel.
    """

    centre: float
    k: float

    @staticmethod
    def of(centre: float, offset: float) -> "Swoosh":
        """The function with this centre and offset."""
        return Swoosh(centre, math.exp(-(offset + _SLOPE * centre) / _STEEPEST))

    @property
    def shift(self) -> float:
        """What the layer before subtracts."""
        return self.centre - math.log(self.k)


SWOOSH_L = Swoosh.of(4.0, 0.035)
SWOOSH_R = Swoosh.of(1.0, 0.313261687)


def swoosh(
    u: Tensor, kind: Swoosh, balance: Balance | None = None, grad_scale: float = 1.0
) -> Tensor:
    """The activation of x = u + kind.shift, any shape.

    Args:
        balance: what a balancer of x has drawn (origin kind.shift).
        grad_scale: the gradient of u is this many times what it should be.
    """
    return run(_Activation, u, kind, balance, grad_scale)


def swoosh_linear(u: Tensor, kind: Swoosh, weight: Tensor, bias: Tensor) -> Tensor:
    """linear(swoosh(u + kind.shift), weight, bias): u (N, T, H), weight (C, H), bias (C,)."""
    return run(_ActivationLinear, u, kind, weight, bias)


def dropout_mask(x: Tensor, channels: int, probability: float) -> Tensor | None:
    """(N, 1, H) dropout factors beside x (N, ...): one mask for all frames of a sequence. None
    where nothing is dropped.
    """
    if probability <= 0.0:
        return None
    ones = torch.ones(x.shape[0], 1, channels, device=x.device)
    return F.dropout(ones, probability).to(torch.promote_types(x.dtype, torch.float32))


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type that matrix products of `x` should have: autocast's, if it is on."""
    # a matrix product of nothing: autocast's own answer, the same call in every torch
    none = _nothing(x.dtype, x.device)
    return torch.mm(none, none).dtype


@lru_cache
def _nothing(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.empty(0, 0, dtype=dtype, device=device)


def swoosh_parts(u: Tensor, kind: Swoosh) -> tuple[Tensor, Tensor]:
    """(D, activation) of x = u + kind.shift, computed in float32 or better."""
    wide = u.float() if u.dtype in (torch.bfloat16, torch.float16) else u
    divisor = wide.exp().add_(kind.k).clamp_(max=_HUGE)
    return divisor, divisor.log().add_(wide, alpha=-_SLOPE)


def swoosh_slope(inverse: Tensor, kind: Swoosh, factor: float = 1.0) -> Tensor:
    """The derivative, from 1 / D, times a factor."""
    return torch.rsub(inverse, factor * _STEEPEST, alpha=factor * kind.k)


class Pieces:
    """(sequences, frames) slices of contiguous parts of x (N, T, H) that a CPU's cache can hold, or
    (...,) where it can hold all of x.
    """

    def __init__(self, x: Tensor) -> None:
        batch, frames, channels = x.shape
        on_cpu = x.device.type == "cpu"
        self._shape = (batch, frames)
        self._rows = max(1, _PIECE // channels) if on_cpu else batch * max(1, frames)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        (batch, frames), rows = self._shape, self._rows
        if batch * frames <= rows:  # cheaper to index with than slices are
            yield (...,)
            return
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
    def forward(
        ctx: Any, u: Tensor, kind: Swoosh, balance: Balance | None, grad_scale: float
    ) -> Tensor:
        divisor, value = swoosh_parts(u, kind)
        ctx.save_for_backward(divisor.reciprocal_().to(u.dtype), None if balance is None else u)
        ctx.how = kind, balance, grad_scale
        return value.to(u.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inverse, u = ctx.saved_tensors
        kind, balance, grad_scale = ctx.how
        grad = swoosh_slope(inverse, kind, grad_scale).mul_(grads[0])
        return grad if balance is None else pushed(grad, u, balance), None, None, None


class _ActivationLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, kind: Swoosh, weight: Tensor, bias: Tensor) -> Tensor:
        dtype = compute_dtype(u)
        divisor, value = swoosh_parts(u, kind)
        rows = value.flatten(0, 1).to(dtype)
        y = torch.addmm(bias.to(dtype), rows, weight.to(dtype).t())
        ctx.save_for_backward(divisor.reciprocal_().to(u.dtype), rows, weight)
        ctx.kind = kind
        return y.reshape(*u.shape[:2], -1)

    @staticmethod
    def plain(u: Tensor, kind: Swoosh, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(swoosh_parts(u, kind)[1], weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inverse, hidden, weight = ctx.saved_tensors
        rows = grads[0].flatten(0, 1).to(hidden.dtype)
        to_hidden = swoosh_slope(inverse, ctx.kind)
        to_hidden.mul_((rows @ weight.to(rows.dtype)).reshape(inverse.shape))
        to_weight = (rows.t() @ hidden).to(weight.dtype)
        return to_hidden, None, to_weight, rows.sum(0).to(weight.dtype)
