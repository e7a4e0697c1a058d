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

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dualasr_lib.model.zipformer.attention import (
    AttentionConfig,
    AttentionWeights,
    NonlinearAttention,
    SelfAttention,
    nonlinear_dim,
    uniform_weights,
)
from dualasr_lib.model.zipformer.context import Context
from dualasr_lib.model.zipformer.convolution import ConvConstants, ConvolutionModule
from dualasr_lib.model.zipformer.feedforward import FeedForward
from dualasr_lib.model.zipformer.masking import drawn, sequence_dropout, sequence_mask
from dualasr_lib.model.zipformer.normalisation import BiasNorm, Bypass
from dualasr_lib.model.zipformer.scheduled import Scheduled
from dualasr_lib.model.zipformer.training_aids import Aids, SkipRates

__all__ = ["LayerConfig", "LayerConstants", "LayerState", "ZipformerLayer"]


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
    aids: bool = True
    """Balancers, whitening, skipped modules, layers and channels, in training."""

    def __post_init__(self) -> None:
        if self.dim % 4 or self.feedforward % 4:
            raise ValueError(
                "dim and feedforward must be multiples of 4, "
                f"but are {self.dim} and {self.feedforward}"
            )
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd and positive, but is {self.kernel}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), but is {self.dropout}")


class LayerState(NamedTuple):
    """What a layer keeps between chunks; every tensor has its batch axis first."""

    key: Tensor
    """(N, L, heads, query_head_dim) keys."""
    nonlinear: Tensor
    """(N, L, 1, 3 C / 4) values of the non-linear attention."""
    value1: Tensor
    """(N, L, heads, value_head_dim) values of the first self-attention."""
    value2: Tensor
    """(N, L, heads, value_head_dim) values of the second self-attention."""
    conv1: Tensor
    """(N, K // 2, C) history of the first convolution; no frames in a full-context layer."""
    conv2: Tensor
    """(N, K // 2, C) history of the second convolution."""


class LayerConstants(NamedTuple):
    """What a layer computes from its weights for all frames alike, whatever they hold."""

    table: Tensor
    """(H, R, P) positional part of the attention, one row per distance."""
    conv1: ConvConstants
    """Of the first convolution."""
    conv2: ConvConstants
    """Of the second convolution."""


class ZipformerLayer(nn.Module):
    """(N, T, C) -> (N, T, C); causal layers stay inside what `Context` shows them."""

    def __init__(self, config: LayerConfig, causal: bool, skip: Scheduled | None = None) -> None:
        """`skip` is the probability, in training, that an utterance skips the whole layer."""
        super().__init__()
        self.config = config
        aids = Aids(config.aids)
        dim, hidden = config.dim, config.feedforward
        self.weights = AttentionWeights(dim, config.attention, aids)
        self.feedforward1 = FeedForward(dim, hidden * 3 // 4, config.dropout, aids)
        self.feedforward2 = FeedForward(dim, hidden, config.dropout, aids)
        self.feedforward3 = FeedForward(dim, hidden * 5 // 4, config.dropout, aids)
        self.nonlinear = NonlinearAttention(dim, aids)
        self.attention1 = SelfAttention(dim, config.attention, aids)
        self.attention2 = SelfAttention(dim, config.attention, aids)
        self.conv1 = ConvolutionModule(dim, config.kernel, causal, aids)
        self.conv2 = ConvolutionModule(dim, config.kernel, causal, aids)
        self.norm = BiasNorm(dim)
        self.bypass_mid = Bypass(dim, aids)
        self.bypass = Bypass(dim, aids, skip)
        self.rates = SkipRates(aids)
        self.balancers = _balancers(dim, aids)

    def init_state(self, batch: int, cached: int, device: torch.device) -> LayerState:
        """State of streams that start now, with caches of `cached` frames (0: whole utterance)."""
        attention = self.config.attention
        query = (attention.heads, attention.query_head_dim)
        value = (attention.heads, attention.value_head_dim)
        history = self.conv1.depthwise.history
        dim = self.config.dim

        kind = self.norm.bias.dtype

        def empty(frames: int, *channels: int) -> Tensor:
            return torch.zeros(batch, frames, *channels, device=device, dtype=kind)

        return LayerState(
            key=empty(cached, *query),
            nonlinear=empty(cached, 1, nonlinear_dim(dim)),
            value1=empty(cached, *value),
            value2=empty(cached, *value),
            conv1=empty(history, dim),
            conv2=empty(history, dim),
        )

    def constants(self, positions: Tensor, chunk: int | None) -> LayerConstants:
        """For position encodings (R, D) of the window and chunks of that many frames."""
        return LayerConstants(
            self.weights.table(positions, self.rates.positions.now()),
            self.conv1.constants(chunk),
            self.conv2.constants(chunk),
        )

    def step(
        self, x: Tensor, state: LayerState, context: Context, constants: LayerConstants
    ) -> tuple[Tensor, LayerState]:
        """x (N, T, C) whole chunks, or a whole utterance with empty caches -> (N, T, C), next
        state.
        """
        start, rates = x, self.rates
        weights, key = self.weights(x, context, constants.table, state.key)
        heard = sequence_mask(x, rates.attention.now(), True) if self.training else None
        x = x + self.feedforward1(x)
        gate = weights
        if self.training and drawn(rates.constant_attention.now()):
            gate = uniform_weights(weights, context)
        y, nonlinear = self.nonlinear(x, gate, context, state.nonlinear)
        x = x + _masked(self.balancers["nonlinear"](y), heard)
        y, value1 = self.attention1(x, weights, context, state.value1)
        x = x + _masked(y, heard)
        y, conv1 = self.conv1(x, context, constants.conv1, state.conv1)
        x = x + self._drop(y, rates.convolution)
        x = self._feed(x, self.feedforward2, "feedforward2")
        x = self.bypass_mid(start, x)
        y, value2 = self.attention2(x, weights, context, state.value2)
        x = x + _masked(y, heard)
        y, conv2 = self.conv2(x, context, constants.conv2, state.conv2)
        x = x + self._drop(y, rates.convolution)
        x = self._feed(x, self.feedforward3, "feedforward3")
        x = self.bypass(start, self.norm(self.balancers["inner"](x)))
        x = self.balancers["whiten"](self.balancers["outer"](x))
        return x, LayerState(key, nonlinear, value1, value2, conv1, conv2)

    def _feed(self, x: Tensor, feedforward: nn.Module, name: str) -> Tensor:
        return x + self._drop(self.balancers[name](feedforward(x)), self.rates.feedforward)

    def _drop(self, y: Tensor, rate: Scheduled) -> Tensor:
        return sequence_dropout(y, rate.now(), True) if self.training else y


def _balancers(dim: int, aids: Aids) -> nn.ModuleDict:
    """What keeps a layer's sums healthy, by the place where it acts."""
    middle = (0.3, 0.7)
    weak, strong = (aids.schedule((0, 0.0), (4000, most)) for most in (0.1, 0.2))
    least = aids.schedule((0, 0.004), (4000, 0.02))
    near = (0.45, 0.55)
    return nn.ModuleDict({
        "nonlinear": aids.balance(dim, middle, (least, math.inf), prob=0.05),
        "feedforward2": aids.balance(dim, middle, (weak, 2.0), prob=0.05),
        "feedforward3": aids.balance(dim, middle, (strong, 4.0), prob=0.05),
        "inner": aids.balance(dim, near, (0.2, 4.0)),
        "outer": aids.balance(dim, near, (0.1, 4.0)),
        "whiten": aids.whiten(1, 4.0, growth=3.0),
    })  # fmt: skip


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask
