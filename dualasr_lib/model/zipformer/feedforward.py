"""Linear, SwooshL, dropout, linear as one function: Zipformer's feed-forward modules, and the
pointwise layers of its front end.

Frames are worked on in pieces that fit a CPU's cache, from input to output, so the wide hidden
layer is written to memory once instead of six times. Kept for the backward pass is its value before
the activation, nothing else; the activation is computed again. Both together cost no time and half
the memory. tests/model/test_feedforward.py holds the slow reference.

Letters: N batch, T frames, C channels, H hidden channels.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualasr_lib.model.zipformer.activations import (
    STEEPEST,
    SWOOSH_L,
    Pieces,
    compute_dtype,
    dropout_mask,
    swoosh_parts,
    widened,
)
from dualasr_lib.model.zipformer.attention import scaled_linear
from dualasr_lib.model.zipformer.fused import run
from dualasr_lib.model.zipformer.regularise import Balance, Balancer, affine_push
from dualasr_lib.model.zipformer.training_aids import Aids

__all__ = ["FeedForward", "feedforward"]


class FeedForward(nn.Module):
    """Dropout has one mask for all frames of a sequence, and starts three times higher, as
    published."""

    def __init__(self, dim: int, hidden: int, dropout: float, aids: Aids) -> None:
        super().__init__()
        self.in_projection = nn.Linear(dim, hidden)
        self.out_projection = scaled_linear(hidden, dim, 0.1)
        self.dropout = aids.dropout(dropout)
        self.balance = aids.balance(hidden, (0.3, 1.0), (0.75, 5.0), origin=SWOOSH_L.shift)
        self.whiten = aids.whiten(1, 7.5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, C) -> (N, T, C)."""
        mask, balance = None, None
        if self.training:
            mask = dropout_mask(x, self.in_projection.out_features, self.dropout.now())
            if isinstance(self.balance, Balancer):
                balance = self.balance.draw(x.ndim)
        return self.whiten(feedforward(x, self.in_projection, self.out_projection, mask, balance))


def feedforward(
    x: Tensor,
    first: nn.Linear,
    second: nn.Linear,
    mask: Tensor | None = None,
    balance: Balance | None = None,
) -> Tensor:
    """second(swoosh_l(first(x)) * mask), (N, T, C) -> (N, T, C').

    Args:
        mask: (N, 1, H) dropout factors.
        balance: what a balancer of the hidden layer has drawn (origin SWOOSH_L.shift).
    """
    how = _How(compute_dtype(x), balance)
    return run(
        _FeedForward, x, first.weight, first.bias, second.weight, second.bias, mask, how
    )  # fmt: skip


class _How(NamedTuple):
    dtype: torch.dtype
    balance: Balance | None


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *rest: Any) -> Tensor:
        first, first_bias, second, second_bias, mask, how = rest
        batch, frames, _ = x.shape
        into, out_of = first.to(how.dtype).t(), second.to(how.dtype).t()
        bias = (first_bias - SWOOSH_L.shift).to(how.dtype)
        end = second_bias.to(how.dtype)
        u = x.new_empty(batch, frames, first.shape[0], dtype=how.dtype)
        y = x.new_empty(batch, frames, second.shape[0], dtype=how.dtype)
        for piece in Pieces(u):
            part = u[piece]
            torch.mm(x[piece].flatten(0, 1).to(how.dtype), into, out=part.flatten(0, 1))
            value = _activated(part, bias, None if mask is None else mask[piece[0]])
            torch.addmm(end, value.flatten(0, 1), out_of, out=y[piece].flatten(0, 1))
        ctx.save_for_backward(x, u, first, second, mask)
        ctx.balance = how.balance
        return y

    @staticmethod
    def plain(x: Tensor, *rest: Any) -> Tensor:
        first, first_bias, second, second_bias, _, _ = rest
        _, value = swoosh_parts(F.linear(x, first, first_bias - SWOOSH_L.shift), SWOOSH_L)
        return F.linear(value, second, second_bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, u, first, second, mask = ctx.saved_tensors
        g = grads[0].to(u.dtype)
        push = None if ctx.balance is None else affine_push(u, ctx.balance)
        to_x, to_hidden_bias = x.new_empty(x.shape), torch.zeros_like(first[:, 0])
        to_first, to_second = torch.zeros_like(first), torch.zeros_like(second)
        into, out_of = first.to(u.dtype), second.to(u.dtype)
        for piece in Pieces(u):
            part, rows = u[piece], g[piece].flatten(0, 1)
            hidden = torch.empty_like(part)
            # 0.92 of the gradient, from where the slope 0.92 - k / D is one operation away
            hidden.flatten(0, 1).addmm_(rows, out_of, beta=0, alpha=STEEPEST)
            value = _descend(part, hidden, None if mask is None else mask[piece[0]], push)
            flat = hidden.flatten(0, 1)
            _add_product(to_second, rows.t(), value.flatten(0, 1))
            _add_product(to_first, flat.t(), x[piece].flatten(0, 1).to(u.dtype))
            to_hidden_bias += flat.sum(dim=0)
            _set_product(to_x[piece].flatten(0, 1), flat, into)
        to_bias = g.sum(dim=(0, 1)).to(second.dtype)
        return to_x, to_first, to_hidden_bias, to_second, to_bias, None, None


def _activated(u: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
    """Adds bias (H,) to u (N, T, H): swoosh_l of that times mask (N, 1, H), of u's type."""
    value = torch.empty_like(u)
    for block in Pieces(u, inner=True):
        _activate(u[block].add_(bias), None if mask is None else mask[block[0]], value[block])
    return value


def _activate(u: Tensor, mask: Tensor | None, value: Tensor) -> Tensor:
    """Writes the activation times the mask into `value`; returns D of the activation."""
    direct = value if widened(u) is u else None
    divisor, wide = swoosh_parts(u, SWOOSH_L, direct)
    if mask is not None:
        wide.mul_(mask)
    if direct is None:
        value.copy_(wide)
    return divisor


def _descend(
    u: Tensor, grad: Tensor, mask: Tensor | None, push: tuple[Tensor, Tensor] | None
) -> Tensor:
    """The activation of u (N, T, H) times mask; `grad`, 0.92 times the gradient of that, becomes
    the gradient of u, with what a balancer adds: its offset and slope.
    """
    value = torch.empty_like(u)
    for block in Pieces(u, inner=True):
        part, kept = u[block], None if mask is None else mask[block[0]]
        divisor = _activate(part, kept, value[block])
        wide = widened(grad[block])
        if kept is not None:
            wide.mul_(kept)
        wide.addcdiv_(wide, divisor, value=-SWOOSH_L.k / STEEPEST)  # the slope is 0.92 - k / D
        if push is not None:
            wide.addcmul_(torch.addcmul(push[0], push[1], widened(part)), wide.abs())
        if wide.dtype != grad.dtype:
            grad[block] = wide
    return value


def _set_product(result: Tensor, a: Tensor, b: Tensor) -> None:
    """result = a @ b, in the type of `result`."""
    if result.dtype == a.dtype:
        torch.mm(a, b, out=result)
    else:
        result.copy_(a @ b)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b, in the type of `total`."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total.add_(a @ b)
