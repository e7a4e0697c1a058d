"""SwooshL and SwooshR, the activation functions of Zipformer (arXiv 2310.11230, section 3.4), alone
and with the linear layer that follows them.

    SwooshL(x) = ln(1 + e^(x - 4)) - 0.08 x - 0.035          (feed-forward modules)
    SwooshR(x) = ln(1 + e^(x - 1)) - 0.08 x - 0.313261687    (convolution modules)

The layer before an activation adds its bias anyway, so it subtracts the shift (4 or 1) there, and
everything here takes the shifted input u. With s = 1 / (1 + e^u):

    SwooshL = -ln s - 0.08 u - 0.355        derivative 0.92 - s

A sigmoid and a logarithm cost a third of a softplus on a CPU, and s is all that the backward pass
needs. `swoosh_linear` keeps s and the (masked) activation, nothing else; the chain of elementary
operations keeps five such tensors. Above u = 85 the activation is constant, its derivative is not.
tests/model/test_activations.py holds the slow reference.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "SWOOSH_L",
    "SWOOSH_R",
    "Swoosh",
    "compute_dtype",
    "dropout_mask",
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


SWOOSH_L = Swoosh(4.0, 0.035)
SWOOSH_R = Swoosh(1.0, 0.313261687)


def swoosh(u: Tensor, kind: Swoosh) -> Tensor:
    """The activation of x = u + kind.shift, any shape."""
    result: Tensor = _Activation.apply(u, kind.constant)
    return result


def swoosh_linear(
    u: Tensor, kind: Swoosh, weight: Tensor, bias: Tensor, mask: Tensor | None = None
) -> Tensor:
    """linear(swoosh(u + kind.shift) * mask, weight, bias).

    Args:
        u: (N, T, H). weight: (C, H). bias: (C,).
        mask: dropout factors that broadcast to u, one for all frames of a sequence: (N, 1, H).
    """
    dtype = compute_dtype(u)
    result: Tensor = _ActivationLinear.apply(u, kind.constant, weight, bias, mask, dtype)
    return result


def dropout_mask(x: Tensor, probability: float) -> Tensor:
    """(N, 1, C) dropout factors for x (N, T, C): one mask for all frames of a sequence."""
    return F.dropout(x.new_ones(x.shape[0], 1, x.shape[2]), probability)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type that matrix products of `x` should have: autocast's, if it is on."""
    # a matrix product of nothing: autocast's own answer, the same call in every torch
    none = x.new_empty(0, 0)
    return torch.mm(none, none).dtype


def _negated(u: Tensor, constant: float) -> tuple[Tensor, Tensor]:
    """(s, -swoosh), both at least float32."""
    u = u.float() if u.dtype in (torch.bfloat16, torch.float16) else u
    s = u.neg().sigmoid_().clamp_(min=_TINY)
    return s, s.log().add_(u, alpha=_SLOPE).add_(constant)


def _pieces(x: Tensor) -> Iterator[tuple[slice, slice]]:
    """(sequences, frames) of contiguous parts of x (N, T, H) that a CPU's cache can hold."""
    batch, frames, channels = x.shape
    rows = max(1, _PIECE // channels) if x.device.type == "cpu" else batch * frames
    if frames >= rows:
        for number in range(batch):
            for start in range(0, frames, rows):
                yield slice(number, number + 1), slice(start, start + rows)
        return
    for number in range(0, batch, rows // frames):
        yield slice(number, number + rows // frames), slice(0, frames)


class _Activation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, constant: float) -> Tensor:
        s, value = _negated(u, constant)
        ctx.save_for_backward(s.to(u.dtype))
        return value.neg_().to(u.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (s,) = ctx.saved_tensors
        return torch.rsub(s, 1.0 - _SLOPE).mul_(grads[0]), None


class _ActivationLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        constant: float,
        weight: Tensor,
        bias: Tensor,
        mask: Tensor | None,
        dtype: torch.dtype,
    ) -> Tensor:
        cast, bias = weight.to(dtype).t(), bias.to(dtype)
        out = u.new_empty(*u.shape[:-1], weight.shape[0], dtype=dtype)
        s, hidden = torch.empty_like(u), torch.empty_like(u, dtype=dtype)
        for piece in _pieces(u):
            s_piece, value = _negated(u[piece], constant)
            hidden[piece] = value if mask is None else value.mul_(mask[piece[0]])
            s[piece] = s_piece
            rows = hidden[piece].flatten(0, 1)
            torch.addmm(bias, rows, cast, alpha=-1, out=out[piece].flatten(0, 1))
        ctx.save_for_backward(s, hidden, weight, mask)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        s, hidden, weight, mask = ctx.saved_tensors
        rows = grads[0].flatten(0, 1).to(hidden.dtype)
        to_hidden = torch.rsub(s, 1.0 - _SLOPE)
        to_hidden.mul_((rows @ weight.to(rows.dtype)).reshape(s.shape))
        if mask is not None:
            to_hidden.mul_(mask)
        to_weight = (rows.t() @ hidden.flatten(0, 1)).neg_().to(weight.dtype)
        return to_hidden, None, to_weight, rows.sum(0).to(weight.dtype), None, None
