"""Transformer attention decoder: token by token, reading the encoder of its branch.

Pre-norm layers with sinusoidal absolute positions, `<sos/eos>` at both ends. It leaves out the
incremental step and its cache (the search that needs them is not here yet).

Letters: N batch, S encoder frames, U tokens, V vocabulary, C decoder channels, M encoder channels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["AttentionDecoder", "DecoderConfig", "DecoderOutput", "smoothed_nll"]


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes of one attention decoder."""

    layers: int = 6
    """Number of layers."""
    dim: int = 512
    """Channels C, even."""
    heads: int = 8
    """Attention heads."""
    feedforward: int = 2048
    """Hidden channels of the feed-forward modules."""
    dropout: float = 0.1
    """Dropout everywhere."""
    label_smoothing: float = 0.1
    """Probability spread evenly over the vocabulary in the training target."""

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise ValueError(f"a decoder must have at least 1 layer, but has {self.layers}")
        if self.dim % 2 or self.dim % self.heads:
            raise ValueError(
                f"decoder dim must be even and a multiple of heads={self.heads}, but is {self.dim}"
            )
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), but is {self.label_smoothing}")


class DecoderOutput(NamedTuple):
    """What a decoder says about given texts, positions 0 ... U (the last one predicts the end)."""

    log_probs: Tensor
    """(N, U + 1, V) float32 natural log-probabilities of the next token."""
    hidden: Tensor
    """(N, U + 1, C) states before the output layer."""
    targets: Tensor
    """(N, U + 1) the tokens followed by the end; -1 behind it."""


class AttentionDecoder(nn.Module):
    """Scores token sequences given encoder outputs (teacher forcing)."""

    def __init__(
        self, config: DecoderConfig, vocab_size: int, memory_dim: int, sos_eos: int
    ) -> None:
        super().__init__()
        self.config, self.sos_eos = config, sos_eos
        self.embedding = nn.Embedding(vocab_size, config.dim)
        nn.init.normal_(self.embedding.weight, std=config.dim**-0.5)
        self.memory_projection = nn.Linear(memory_dim, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        layer = nn.TransformerDecoderLayer(
            config.dim, config.heads, config.feedforward, config.dropout,
            activation=F.silu, batch_first=True, norm_first=True,
        )  # fmt: skip
        norm = nn.LayerNorm(config.dim)
        stack: Callable[..., nn.Module] = nn.TransformerDecoder
        self.layers = stack(layer, config.layers, norm)
        self.output = nn.Linear(config.dim, vocab_size)

    def forward(
        self, memory: Tensor, lens: Tensor, tokens: Tensor, token_lens: Tensor
    ) -> DecoderOutput:
        """memory (N, S, M) of lens (N,) frames, tokens (N, U) of token_lens (N,)."""
        inputs, targets = self._shifted(tokens, token_lens)
        x = self.embedding(inputs) * math.sqrt(self.config.dim)
        x = self.dropout(x + _sinusoids(x.shape[1], self.config.dim, x.device))
        frames = torch.arange(memory.shape[1], device=memory.device)
        hidden = self.layers(
            x,
            self.memory_projection(memory),
            tgt_mask=_causal_mask(x.shape[1], x.device),
            memory_key_padding_mask=frames[None, :] >= lens[:, None],
        )
        log_probs = self.output(hidden).float().log_softmax(dim=2)
        return DecoderOutput(log_probs, hidden, targets)

    def _shifted(self, tokens: Tensor, token_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (N, U + 1) begin with sos; targets (N, U + 1) end with eos, then -1."""
        index = torch.arange(tokens.shape[1] + 1, device=tokens.device)[None, :]
        inputs = F.pad(tokens, (1, 0), value=self.sos_eos)
        targets = F.pad(tokens, (0, 1), value=-1)
        targets = targets.masked_fill(index == token_lens[:, None], self.sos_eos)
        return inputs, targets.masked_fill(index > token_lens[:, None], -1)


def smoothed_nll(log_probs: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy per utterance (N,) against (1 - e) one-hot + e / V, without building that
    target.

    Args:
        log_probs: (N, U, V). targets: (N, U), -1 where there is none. smoothing: e.
    """
    valid = targets >= 0
    picked = log_probs.gather(2, targets.clamp(min=0)[:, :, None])[:, :, 0]
    nll = -(1.0 - smoothing) * picked - smoothing * log_probs.mean(dim=2)
    return nll.masked_fill(~valid, 0.0).sum(dim=1)


def _causal_mask(size: int, device: torch.device) -> Tensor:
    """(U, U) bool, True where a position may not look: later ones."""
    return torch.ones(size, size, dtype=torch.bool, device=device).triu(diagonal=1)


def _sinusoids(length: int, dim: int, device: torch.device) -> Tensor:
    """(U, C) absolute positions (Vaswani et al. 2017, section 3.5)."""
    position = torch.arange(length, device=device, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(10000.0) / dim))
    return torch.stack([(position * rate).sin(), (position * rate).cos()], dim=2).flatten(1)
