"""One Zipformer layer: attention weights once, three feed-forwards, two self-attentions, two
convolutions.

    A  = attention weights of x
    x += FF1(x); x += NonlinearAttention(x, A); x += SelfAttention1(x, A); x += Conv1(x); x +=
    FF2(x)
    x  = bypass_mid(x0, x)
    x += SelfAttention2(x, A); x += Conv2(x); x += FF3(x)
    x  = bypass(x0, BiasNorm(x))                                        (arXiv 2310.11230, figure 2)

Letters: N batch, T frames, L cached frames, C channels, K kernel.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dualasr_lib.model.activations import SwooshL
from dualasr_lib.model.attention import (
    AttentionConfig,
    AttentionWeights,
    NonlinearAttention,
    SelfAttention,
    nonlinear_dim,
    scaled_linear,
)
from dualasr_lib.model.convolution import ConvolutionModule
from dualasr_lib.model.normalisation import BiasNorm, Bypass
from dualasr_lib.model.streaming import Context

__all__ = ["LayerConfig", "LayerState", "ZipformerLayer"]


@dataclass(frozen=True, kw_only=True)
class LayerConfig:
    """Sizes of a layer; all layers of a stack share them."""

    dim: int = 192
    """Channels C."""
    feedforward: int = 512
    """Hidden channels of the second feed-forward; the first has 3/4 of it, the third 5/4."""
    kernel: int = 31
    """Depthwise kernel K, odd."""
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    """Sizes of the attention."""
    dropout: float = 0.1
    """Dropout of the feed-forward modules."""
    bypass_warm_up: int = 20000
    """Optimiser steps over which the bypass floor falls from 0.9 to 0.2."""

    def __post_init__(self) -> None:
        if self.dim % 4 or self.feedforward % 4:
            raise ValueError(
                "dim and feedforward must be multiples of 4, "
                f"but are {self.dim} and {self.feedforward}"
            )


class LayerState(NamedTuple):
    """What a layer keeps between chunks; every tensor has its batch axis first."""

    key: Tensor
    """(N, L, heads * query_head_dim) keys."""
    nonlinear: Tensor
    """(N, L, 3 C / 4) values of the non-linear attention."""
    value1: Tensor
    """(N, L, heads * value_head_dim) values of the first self-attention."""
    value2: Tensor
    """(N, L, heads * value_head_dim) values of the second self-attention."""
    conv1: Tensor
    """(N, K // 2, C) history of the first convolution; no frames in a full-context layer."""
    conv2: Tensor
    """(N, K // 2, C) history of the second convolution."""


class _FeedForward(nn.Sequential):
    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(dim, hidden), SwooshL(), nn.Dropout(dropout), scaled_linear(hidden, dim, 0.1)
        )


class ZipformerLayer(nn.Module):
    """(N, T, C) -> (N, T, C); causal layers stay inside what `Context` shows them."""

    def __init__(self, config: LayerConfig, causal: bool) -> None:
        super().__init__()
        self.config = config
        dim, hidden = config.dim, config.feedforward
        self.weights = AttentionWeights(dim, config.attention)
        self.feedforward1 = _FeedForward(dim, hidden * 3 // 4, config.dropout)
        self.feedforward2 = _FeedForward(dim, hidden, config.dropout)
        self.feedforward3 = _FeedForward(dim, hidden * 5 // 4, config.dropout)
        self.nonlinear = NonlinearAttention(dim)
        self.attention1 = SelfAttention(dim, config.attention)
        self.attention2 = SelfAttention(dim, config.attention)
        self.conv1 = ConvolutionModule(dim, config.kernel, causal)
        self.conv2 = ConvolutionModule(dim, config.kernel, causal)
        self.norm = BiasNorm(dim)
        self.bypass_mid = Bypass(dim, config.bypass_warm_up)
        self.bypass = Bypass(dim, config.bypass_warm_up)

    def init_state(self, batch: int, cached: int, device: torch.device) -> LayerState:
        """State of streams that start now, with caches of `cached` frames (0: whole utterance)."""
        attention = self.config.attention
        query = attention.heads * attention.query_head_dim
        value = attention.heads * attention.value_head_dim
        history = self.conv1.depthwise.history
        dim = self.config.dim

        def empty(frames: int, channels: int) -> Tensor:
            return torch.zeros(batch, frames, channels, device=device)

        return LayerState(
            key=empty(cached, query),
            nonlinear=empty(cached, nonlinear_dim(dim)),
            value1=empty(cached, value),
            value2=empty(cached, value),
            conv1=empty(history, dim),
            conv2=empty(history, dim),
        )

    def step(self, x: Tensor, state: LayerState, context: Context) -> tuple[Tensor, LayerState]:
        """x (N, T, C) whole chunks, or a whole utterance with empty caches -> (N, T, C), next
        state.
        """
        start = x
        weights, key = self.weights(x, context, state.key)
        x = x + self.feedforward1(x)
        y, nonlinear = self.nonlinear(x, weights, state.nonlinear)
        x = x + y
        y, value1 = self.attention1(x, weights, state.value1)
        x = x + y
        y, conv1 = self.conv1(x, context, state.conv1)
        x = x + y
        x = x + self.feedforward2(x)
        x = self.bypass_mid(start, x)
        y, value2 = self.attention2(x, weights, state.value2)
        x = x + y
        y, conv2 = self.conv2(x, context, state.conv2)
        x = x + y
        x = x + self.feedforward3(x)
        x = self.bypass(start, self.norm(x))
        return x, LayerState(key, nonlinear, value1, value2, conv1, conv2)
