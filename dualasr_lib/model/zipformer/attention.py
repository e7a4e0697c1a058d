"""Self-attention of Zipformer: attention weights computed once per layer and used by three modules.

Letters: N batch, T frames, L cached frames, C channels, H heads; M blocks of B frames, each with a
    window of W keys (band.py), R = W + B - 1 distances between them.
Source: arXiv 2310.11230, sections 3.1 and 3.2; compact relative positions as in its public
    description.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualasr_lib.model.zipformer.band import MASKED, merge, split_keys, split_queries
from dualasr_lib.model.zipformer.context import Context
from dualasr_lib.model.zipformer.fused import run
from dualasr_lib.model.zipformer.masking import drawn
from dualasr_lib.model.zipformer.training_aids import Aids

__all__ = [
    "AttentionConfig",
    "AttentionWeights",
    "NonlinearAttention",
    "SelfAttention",
    "nonlinear_dim",
    "relative_view",
    "scaled_linear",
    "uniform_weights",
]


_LARGE = 25.0  # scores beyond it are penalised, as published


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Sizes of one layer's attention."""

    heads: int = 4
    """Number of heads."""
    query_head_dim: int = 32
    """Query and key channels per head."""
    value_head_dim: int = 12
    """Value channels per head."""
    position_head_dim: int = 4
    """Channels per head of the query's positional part."""
    position_dim: int = 48
    """Channels of the relative position encoding; even."""

    def __post_init__(self) -> None:
        sizes = (self.heads, self.query_head_dim, self.value_head_dim, self.position_head_dim)
        if min(sizes) < 1:
            raise ValueError(f"heads and their channels must be at least 1, but are {sizes}")
        if self.position_dim < 2 or self.position_dim % 2:
            raise ValueError(f"position_dim must be even, but is {self.position_dim}")


def scaled_linear(inputs: int, outputs: int, scale: float, bias: bool = True) -> nn.Linear:
    """A linear layer whose initial weights are `scale` times the usual ones; those of its bias are
    uniform in +-0.1 scale, as published.
    """
    layer = nn.Linear(inputs, outputs, bias=bias)
    with torch.no_grad():
        layer.weight.mul_(scale)
        if bias:
            layer.bias.uniform_(-0.1 * scale, 0.1 * scale)
    return layer


def relative_view(by_distance: Tensor, width: int) -> Tensor:
    """(..., B, R) scores by distance, contiguous -> (..., B, W) view of them by key, W = R - B + 1.

    Row t, key k needs column (B - 1 - t) + k. With rows of length R laid end to end that is
    position t (R - 1) + (B - 1) + k: the same memory, read with rows one shorter, from B - 1 on.
    """
    *outer, block, row = by_distance.shape
    strides = (*by_distance.stride()[:-2], row - 1, 1)
    offset = by_distance.storage_offset() + block - 1
    return by_distance.as_strided((*outer, block, width), strides, offset)


def _relative_by_slices(by_distance: Tensor, width: int) -> Tensor:
    """`relative_view` of (H, M, B, R) without strides; R may be larger than W + B - 1."""
    heads, _, block, row = by_distance.shape
    flat = by_distance.reshape(heads, -1, block * row)
    begin = block - 1
    shifted = flat[:, :, begin : begin + block * (row - 1)]
    return shifted.reshape(heads, -1, block, row - 1)[:, :, :, :width]


class AttentionWeights(nn.Module):
    """softmax(q.k + p.position) once per layer; there is no 1/sqrt(d), the initial weights are
    small instead.
    """

    def __init__(self, dim: int, config: AttentionConfig, aids: Aids) -> None:
        super().__init__()
        self.config = config
        self.query = config.heads * config.query_head_dim
        self.position = config.heads * config.position_head_dim
        self.whiten_keys = aids.whiten(config.heads, 3.0, grad_scale=0.025)
        self.balance_keys = aids.balance(self.query, (0.4, 0.6), (0.0, 100.0), prob=0.025)
        self.penalty_rate = 0.1 if aids.enabled else 0.0
        scale = config.query_head_dim**-0.25
        self.in_projection = scaled_linear(dim, 2 * self.query + self.position, scale)
        self.position_projection = scaled_linear(
            config.position_dim, self.position, 0.05, bias=False
        )

    def table(self, positions: Tensor, skip: float) -> Tensor:
        """(R, D) position encoding -> (H, R, P), one row per distance.

        Args:
            skip: probability, in training, to leave the positional part of the scores out.
        """
        table: Tensor = self.position_projection(positions.to(self.position_projection.weight))
        if self.training and drawn(skip):
            table = table * 0.0
        heads = self.config.heads
        return table.reshape(table.shape[0], heads, -1).transpose(0, 1)

    def forward(
        self, x: Tensor, context: Context, table: Tensor, key_cache: Tensor
    ) -> tuple[Tensor, Tensor]:
        """x (N, T, C), table (H, R, P), key_cache (N, L, H, D) -> weights (H, M, B, W), cache."""
        heads, window = self.config.heads, context.window
        q, k, p = self.in_projection(x).split([self.query, self.query, self.position], dim=2)
        k = self.balance_keys(self.whiten_keys(k))
        keys, key_cache = split_keys(k, key_cache, window)
        weights = run(
            _Weights,
            split_queries(q, heads, window),
            keys,
            split_queries(p, heads, window),
            table.to(q.dtype),
            context.mask,
            self.training and drawn(self.penalty_rate),
        )
        return weights, key_cache


class _Weights(torch.autograd.Function):
    """q (H, M, B, D), k (H, M, W, D), p (H, M, B, P), table (H, R, P) and mask (N or 1, blocks, B
    or 1, W) -> softmax(q k + p table by key + mask), (H, M, B, W).

    Keeps the weights and its inputs; elementary operations would keep five tensors of that size.
    `penalise`: a score beyond +-25 gets the gradient of an average score on top, in the direction
    that makes it smaller. (The published penalty is absolute, 1e-4 beside a loss summed over all
    frames; ours follows the scale of the loss.)
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, p: Tensor, table: Tensor, mask: Tensor, penalise: bool
    ) -> Tensor:
        heads, blocks, block, _ = q.shape
        width, count = k.shape[2], mask.shape[1]
        by_distance = p.flatten(1, 2) @ table.transpose(1, 2)  # (H, M*B, R)
        by_distance = by_distance.reshape(heads, blocks // count, count, block, -1)
        scores = relative_view(by_distance, width) + mask
        flat = scores.reshape(heads * blocks, block, width).to(q.dtype)
        flat.baddbmm_(q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2))
        wide = torch.promote_types(q.dtype, torch.float32)
        weights = flat.to(wide).softmax(dim=2).to(q.dtype).reshape(heads, blocks, block, width)
        beyond = _beyond(flat) if penalise else None
        ctx.save_for_backward(q, k, p, table, weights, beyond)
        return weights

    @staticmethod
    def plain(
        q: Tensor, k: Tensor, p: Tensor, table: Tensor, mask: Tensor, penalise: bool
    ) -> Tensor:
        heads, _, block, _ = q.shape
        table = F.pad(
            table, (0, 0, 0, 1)
        )  # rows read one shorter have a column then, even if R = 1
        by_distance = p @ table.transpose(1, 2)[:, None]  # (H, M, B, R + 1)
        width = by_distance.shape[3] - block
        scores = q @ k.transpose(2, 3) + _relative_by_slices(by_distance, width)
        by_block = scores.reshape(heads, -1, mask.shape[1], block, width)
        return (by_block + mask).softmax(dim=4).reshape(scores.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, p, table, weights, beyond = ctx.saved_tensors
        heads, blocks, block, width = weights.shape
        scores = torch._softmax_backward_data(grads[0], weights, 3, weights.dtype)
        flat = scores.flatten(0, 1)
        if beyond is not None:
            flat.add_(beyond.to(flat.dtype) * flat.abs().mean())
        to_q = (flat @ k.flatten(0, 1)).reshape(q.shape)
        to_k = (flat.transpose(1, 2) @ q.flatten(0, 1)).reshape(k.shape)
        by_distance = scores.new_zeros(heads, blocks, block, table.shape[1])
        relative_view(by_distance, width).copy_(scores)
        rows = by_distance.flatten(1, 2)  # (H, M*B, R)
        to_p = (rows @ table).reshape(p.shape)
        return to_q, to_k, to_p, rows.transpose(1, 2) @ p.flatten(1, 2), None, None


def _beyond(scores: Tensor) -> Tensor:
    """int8 signs of the scores that are too large, 0 elsewhere and where the mask was added."""
    low = (scores < -_LARGE) & (scores > MASKED / 2)
    return (scores > _LARGE).to(torch.int8) - low.to(torch.int8)


class SelfAttention(nn.Module):
    """Values of its own, averaged with attention weights it is given."""

    def __init__(self, dim: int, config: AttentionConfig, aids: Aids) -> None:
        super().__init__()
        inner = config.heads * config.value_head_dim
        self.in_projection = nn.Linear(dim, inner)
        self.out_projection = scaled_linear(inner, dim, 0.05)
        self.whiten = aids.whiten(1, 7.5, growth=3.0)

    def forward(
        self, x: Tensor, weights: Tensor, context: Context, cache: Tensor
    ) -> tuple[Tensor, Tensor]:
        """x (N, T, C), weights (H, M, B, W), cache (N, L, H, V) -> (N, T, C), next cache."""
        value = self.in_projection(x)
        mixed, cache = _mixed(weights, value, context, cache)
        return self.whiten(self.out_projection(mixed)), cache


class NonlinearAttention(nn.Module):
    """tanh(s) * x, averaged with the weights of head 0, times y: gated attention."""

    def __init__(self, dim: int, aids: Aids) -> None:
        super().__init__()
        self.inner = inner = nonlinear_dim(dim)
        self.in_projection = nn.Linear(dim, 3 * inner)
        self.out_projection = scaled_linear(inner, dim, 0.05)
        fewest = aids.schedule((0, 0.25), (20000, 0.05))
        most = aids.schedule((0, 0.75), (20000, 0.95))
        self.balance_gate = aids.balance(inner, (fewest, most), (0.5, 5.0))
        self.whiten_value = aids.whiten(1, 5.0)
        self.whiten = aids.whiten(1, 5.0, growth=3.0)

    def forward(
        self, x: Tensor, weights: Tensor, context: Context, cache: Tensor
    ) -> tuple[Tensor, Tensor]:
        """x (N, T, C), weights (H or 1, M, B, W), cache (N, L, 1, 3C/4) -> (N, T, C), cache."""
        s, value, gate = self.in_projection(x).chunk(3, dim=2)
        value = self.whiten_value(value) * self.balance_gate(s).tanh()
        mixed, cache = _mixed(weights[:1], value, context, cache)
        return self.whiten(self.out_projection(mixed * gate)), cache


def _mixed(
    weights: Tensor, value: Tensor, context: Context, cache: Tensor
) -> tuple[Tensor, Tensor]:
    """Values (N, T, H*V) averaged with weights (H, M, B, W) -> (N, T, H*V), next cache."""
    values, cache = split_keys(value, cache, context.window)
    mixed = torch.bmm(weights.flatten(0, 1), values.flatten(0, 1))
    mixed = mixed.view(*weights.shape[:3], values.shape[3])
    return merge(mixed, value.shape[1], context.window), cache


def uniform_weights(weights: Tensor, context: Context) -> Tensor:
    """(1, M, B, W) weights that hear all visible keys alike, for weights (H, M, B, W)."""
    visible = (context.mask == 0).to(weights.dtype)
    share = visible / visible.sum(dim=3, keepdim=True).clamp(min=1.0)
    count, block, width = context.mask.shape[1], weights.shape[2], weights.shape[3]
    batch = weights.shape[1] // count
    return share.expand(batch, count, block, width).reshape(1, -1, block, width)


def nonlinear_dim(dim: int) -> int:
    """Hidden channels of the non-linear attention: 3/4 of the layer's."""
    return 3 * dim // 4
