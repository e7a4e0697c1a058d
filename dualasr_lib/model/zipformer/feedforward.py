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
    SWOOSH_L,
    Pieces,
    compute_dtype,
    dropout_mask,
    swoosh_parts,
    swoosh_slope,
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
            torch.addmm(bias, x[piece].flatten(0, 1).to(how.dtype), into, out=part.flatten(0, 1))
            _, value = swoosh_parts(part, SWOOSH_L)
            if mask is not None:
                value.mul_(mask[piece[0]])
            rows = value.flatten(0, 1).to(how.dtype)
            torch.addmm(end, rows, out_of, out=y[piece].flatten(0, 1))
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
        to_x, to_hidden_bias = torch.empty_like(x), torch.zeros_like(first[:, 0])
        to_first, to_second = torch.zeros_like(first), torch.zeros_like(second)
        into, out_of = first.to(u.dtype), second.to(u.dtype)
        for piece in Pieces(u):
            part, rows = u[piece], g[piece].flatten(0, 1)
            divisor, value = swoosh_parts(part, SWOOSH_L)
            slope = swoosh_slope(divisor.reciprocal_(), SWOOSH_L)
            hidden = (rows @ out_of).reshape(part.shape)
            if mask is not None:
                value.mul_(mask[piece[0]])
                slope.mul_(mask[piece[0]])
            hidden = slope.mul_(hidden)
            if push is not None:
                hidden.addcmul_(torch.addcmul(push[0], push[1], part.float()), hidden.abs())
            flat = hidden.flatten(0, 1).to(u.dtype)
            _add_product(to_second, rows.t(), value.flatten(0, 1).to(u.dtype))
            _add_product(to_first, flat.t(), x[piece].flatten(0, 1).to(u.dtype))
            to_hidden_bias += flat.sum(dim=0)
            to_x[piece] = (flat @ into).reshape(*part.shape[:2], -1)
        to_bias = g.sum(dim=(0, 1)).to(second.dtype)
        return to_x, to_first, to_hidden_bias, to_second, to_bias, None, None


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b, in the type of `total`."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total.add_(a @ b)
