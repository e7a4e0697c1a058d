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
    "STEEPEST",
    "SWOOSH_L",
    "SWOOSH_R",
    "Pieces",
    "Swoosh",
    "compute_dtype",
    "dropout_mask",
    "layout",
    "swoosh",
    "swoosh_linear",
    "swoosh_parts",
    "swoosh_slope",
    "widened",
]

_SLOPE = 0.08
STEEPEST = 1.0 - _SLOPE
"""The largest derivative."""
_HUGE = 1e37  # it and its inverse are finite
_PIECE = 2**20  # numbers of one product: fewer make it narrow, more miss the outer cache
_BLOCK = 2**17  # numbers of one chain of elementary operations: more miss the inner cache


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
        return Swoosh(centre, math.exp(-(offset + _SLOPE * centre) / STEEPEST))

    @property
    def shift(self) -> float:
        """What the layer before subtracts."""
        return self.centre - math.log(self.k)


SWOOSH_L = Swoosh.of(4.0, 0.035)
SWOOSH_R = Swoosh.of(1.0, 0.313261687)


def swoosh(
    u: Tensor,
    kind: Swoosh,
    balance: Balance | None = None,
    grad_scale: float = 1.0,
    cache: Tensor | None = None,
) -> Tensor:
    """The activation of x = u + kind.shift, any shape.

    Args:
        balance: what a balancer of x has drawn (origin kind.shift).
        grad_scale: the gradient of u is this many times what it should be.
        cache: joined in front of the result along dimension 2.
    """
    return run(_Activation, u, kind, balance, grad_scale, cache)


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


def swoosh_parts(u: Tensor, kind: Swoosh, into: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(D, activation) of x = u + kind.shift, computed in float32 or better; the activation may be
    written `into` a tensor of that type.
    """
    wide = widened(u)
    divisor = wide.exp().add_(kind.k).clamp_(max=_HUGE)
    value = divisor.log() if into is None else torch.log(divisor, out=into)
    return divisor, value.add_(wide, alpha=-_SLOPE)


def widened(x: Tensor) -> Tensor:
    """x, in float32 where it has fewer digits."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def swoosh_slope(inverse: Tensor, kind: Swoosh, factor: float = 1.0) -> Tensor:
    """The derivative, from 1 / D, times a factor."""
    return torch.rsub(inverse, factor * STEEPEST, alpha=factor * kind.k)


class Pieces:
    """(sequences, frames) slices of contiguous parts of x (N, T, H) that a CPU's cache can hold, or
    (...,) where it can hold all of x. `inner`: parts for elementary operations, not for products.
    """

    def __init__(self, x: Tensor, inner: bool = False) -> None:
        batch, frames, channels = x.shape
        on_cpu, most = x.device.type == "cpu", _BLOCK if inner else _PIECE
        self._shape = (batch, frames)
        self._rows = max(1, most // channels) if on_cpu else batch * max(1, frames)

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
        ctx: Any, u: Tensor, kind: Swoosh, balance: Any, scale: float, cache: Any
    ) -> Tensor:
        inverse, past = torch.empty_like(u), 0 if cache is None else cache.shape[2]
        value = own = _longer(u, past)
        if past:
            value[:, :, :past] = cache
            own = value[:, :, past:]
        for part, result, kept in _in_blocks(u, own, inverse):
            direct = result if result.dtype == torch.promote_types(u.dtype, torch.float32) else None
            divisor, wide = swoosh_parts(part, kind, direct)
            if direct is None:
                result.copy_(wide)
            kept.copy_(divisor.reciprocal_())
        ctx.save_for_backward(inverse, None if balance is None else u)
        ctx.how = kind, balance, scale, past
        return value

    @staticmethod
    def plain(u: Tensor, kind: Swoosh, balance: Any, scale: float, cache: Any) -> Tensor:
        value = swoosh_parts(u, kind)[1]
        return value if cache is None else torch.cat([cache, value], dim=2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inverse, u = ctx.saved_tensors
        kind, balance, scale, past = ctx.how
        grad = torch.empty_like(inverse)
        incoming = grads[0][:, :, past:] if past else grads[0]
        for result, arrived, kept in _in_blocks(grad, incoming, inverse):
            torch.mul(arrived, scale * STEEPEST, out=result)
            result.addcmul_(arrived, kept, value=-scale * kind.k)
        grad = grad if balance is None else pushed(grad, u, balance)
        to_cache = grads[0][:, :, :past] if ctx.needs_input_grad[4] else None
        return grad, None, None, None, to_cache


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


def _longer(x: Tensor, past: int) -> Tensor:
    """An empty tensor like x (N, C, T, F), with `past` more frames; like any x where that is 0."""
    if past == 0:
        return torch.empty_like(x)
    size = (*x.shape[:2], past + x.shape[2], *x.shape[3:])
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=layout(x))


def layout(x: Tensor) -> torch.memory_format:
    """Whether channels lie last in memory, of maps (N, C, T, F)."""
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _in_blocks(x: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of parts that a CPU's inner cache holds, of tensors of one shape (N, C, T, F) and with
    channels last; of others all at once.
    """
    if layout(x) is not torch.channels_last:
        yield x, *others
        return
    rows = [tensor.permute(0, 2, 3, 1).flatten(2) for tensor in (x, *others)]  # (N, T, F C)
    for block in Pieces(rows[0], inner=True):
        yield tuple(tensor[block] for tensor in rows)
