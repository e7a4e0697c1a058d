"""Self-attention of Zipformer: attention weights computed once per layer and used by three modules.

Letters: N batch, T query frames, L cached frames, K = L + T keys, H heads, C channels.
Source: arXiv 2310.11230, sections 3.1 and 3.2; compact relative positions as in its public
    description.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualasr_lib.model.streaming import Context, keep_last

__all__ = [
    "AttentionConfig",
    "AttentionWeights",
    "NonlinearAttention",
    "SelfAttention",
    "nonlinear_dim",
    "position_encoding",
    "relative_shift",
    "scaled_linear",
]

_MASKED = -10000.0  # exp(-10000 - max) = 0, yet a row that is masked throughout is no NaN


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


def scaled_linear(inputs: int, outputs: int, scale: float, bias: bool = True) -> nn.Linear:
    """A linear layer whose initial weights (and bias) are `scale` times smaller than usual."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(scale)
    return layer


def position_encoding(cached: int, num_frames: int, dim: int, device: torch.device) -> Tensor:
    """(L + 2 T - 1, D) encoding of the distance query - key, from L + T - 1 down to -(T - 1).

    The distance is compressed by a logarithm and mapped to an angle, so that near distances are
    told apart better than far ones; columns are cosines and sines of its multiples, the last column
    is 1.
    """
    distance = torch.arange(
        cached + num_frames - 1, -num_frames, -1, device=device, dtype=torch.float32
    )
    width = math.sqrt(dim)
    squeezed = width * distance.sign() * ((distance.abs() + width).log() - math.log(width))
    angle = (squeezed * (2.0 * math.pi / dim)).atan()
    multiples = angle[:, None] * torch.arange(1, dim // 2 + 1, device=device)
    encoding = torch.stack([multiples.cos(), multiples.sin()], dim=2).flatten(1)
    encoding[:, -1] = 1.0
    return encoding


def relative_shift(scores: Tensor, num_keys: int) -> Tensor:
    """(N, H, T, T + K - 1) scores by distance -> (N, H, T, K) scores by key.

    Row t, key k needs column (T - 1 - t) + k. With rows of length R = T + K - 1 laid end to end
    that is position t (R - 1) + (T - 1) + k: the same memory, read with rows one shorter, from
    T - 1 on.
    """
    batch, heads, frames, row = scores.shape
    if frames == 1:
        return scores
    flat = scores.reshape(batch, heads, frames * row)[
        :, :, frames - 1 : frames - 1 + frames * (row - 1)
    ]
    return flat.reshape(batch, heads, frames, row - 1)[:, :, :, :num_keys]


class AttentionWeights(nn.Module):
    """softmax(q.k + p.position) once per layer; there is no 1/sqrt(d), the initial weights are
    small instead.
    """

    def __init__(self, dim: int, config: AttentionConfig) -> None:
        super().__init__()
        self.config = config
        self.query = config.heads * config.query_head_dim
        self.position = config.heads * config.position_head_dim
        scale = config.query_head_dim**-0.25
        self.in_projection = scaled_linear(dim, 2 * self.query + self.position, scale)
        self.position_projection = scaled_linear(
            config.position_dim, self.position, 0.05, bias=False
        )

    def forward(self, x: Tensor, context: Context, key_cache: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, T, C), key_cache (N, L, H*D) -> weights (N, H, T, L + T), next cache."""
        heads = self.config.heads
        q, k, p = self.in_projection(x).split([self.query, self.query, self.position], dim=2)
        keys = torch.cat([key_cache, k], dim=1)
        scores = _by_head(q, heads) @ _by_head(keys, heads).transpose(2, 3)
        table = self.position_projection(context.positions)[None]  # (1, L+2T-1, H*P)
        by_distance = _by_head(p, heads) @ _by_head(table, heads).transpose(2, 3)
        scores = scores + relative_shift(by_distance, keys.shape[1])
        weights = scores.masked_fill(context.mask, _MASKED).softmax(dim=3)
        return weights, keep_last(key_cache, k)


class SelfAttention(nn.Module):
    """Values of its own, averaged with attention weights it is given."""

    def __init__(self, dim: int, config: AttentionConfig) -> None:
        super().__init__()
        self.heads = config.heads
        inner = config.heads * config.value_head_dim
        self.in_projection = nn.Linear(dim, inner)
        self.out_projection = scaled_linear(inner, dim, 0.05)

    def forward(self, x: Tensor, weights: Tensor, value_cache: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, T, C), weights (N, H, T, L + T), value_cache (N, L, H*V) -> (N, T, C), cache."""
        value = self.in_projection(x)
        mixed = weights @ _by_head(torch.cat([value_cache, value], dim=1), self.heads)
        # (N, H, T, V) -> (N, T, H*V)
        merged = mixed.transpose(1, 2).flatten(2)
        return self.out_projection(merged), keep_last(value_cache, value)


class NonlinearAttention(nn.Module):
    """tanh(s) * x, averaged with the weights of head 0, times y: gated attention."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.inner = inner = nonlinear_dim(dim)
        self.in_projection = nn.Linear(dim, 3 * inner)
        self.out_projection = scaled_linear(inner, dim, 0.05)

    def forward(self, x: Tensor, weights: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, T, C), weights (N, H, T, L + T), cache (N, L, 3C/4) -> (N, T, C), next cache."""
        s, value, gate = self.in_projection(x).chunk(3, dim=2)
        value = value * s.tanh()
        mixed = weights[:, 0] @ torch.cat([cache, value], dim=1)
        return self.out_projection(mixed * gate), keep_last(cache, value)


def nonlinear_dim(dim: int) -> int:
    """Hidden channels of the non-linear attention: 3/4 of the layer's."""
    return 3 * dim // 4


def _by_head(x: Tensor, heads: int) -> Tensor:
    """(N, T, H*D) -> (N, H, T, D)."""
    batch, frames, channels = x.shape
    return x.reshape(batch, frames, heads, channels // heads).transpose(1, 2)
