"""Transformer attention decoder: token by token, reading the encoder of its branch.

Pre-norm layers with sinusoidal absolute positions, `<sos/eos>` at both ends. One set of weights,
three ways through it, which agree:

    forward                    given texts at once, for training
    init_state, step           one token of each hypothesis at a time: greedy search
    score_nbest                many given texts of each utterance, each common prefix once

It leaves out beam search: texts of n-best lists are scored instead.

Letters: N batch, S encoder frames, U tokens, V vocabulary, C decoder channels, M encoder channels,
K hypotheses per utterance, T tokens in the caches, P hypotheses of all utterances, H heads.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualasr_lib.core.tree import map_tree
from dualasr_lib.model.decoder_layer import DecoderLayer, KeyValue, attend, by_head
from dualasr_lib.model.prefixes import PrefixChunk, prefix_chunks

__all__ = [
    "AttentionDecoder",
    "DecoderConfig",
    "DecoderOutput",
    "DecoderState",
    "Memory",
    "smoothed_nll",
]


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
        if self.heads < 1 or self.dim < 2 or self.feedforward < 1:
            raise ValueError(
                "heads, dim and feedforward must be positive, "
                f"but are {self.heads}, {self.dim} and {self.feedforward}"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), but is {self.dropout}")
        if self.dim % 2 or self.dim % self.heads:
            raise ValueError(
                f"decoder dim must be even and a multiple of heads={self.heads}, but is {self.dim}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"decoder dropout must lie in [0, 1), but is {self.dropout}")
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


class Memory(NamedTuple):
    """The encoder's output as the layers read it, projected once."""

    layers: tuple[KeyValue, ...]
    """Per layer (N, H, S, D)."""
    visible: Tensor
    """(N, S) bool; all True, on frames of 0, where an utterance has none: attention must fall
    somewhere."""


class DecoderState(NamedTuple):
    """Where a search stands: a value, with the batch axis first in each tensor.

    The caches grow by one token per step. `position` may differ between the streams of a batch: a
    stream's own tokens are the last `position` ones of the caches, zeros precede them.
    """

    caches: tuple[KeyValue, ...]
    """Per layer (N, K, H, T, D): what the self-attention has read."""
    memory: Memory
    """The same for all K hypotheses."""
    position: Tensor
    """(N,) int64 tokens read, the start included."""


class AttentionDecoder(nn.Module):
    """Scores token sequences given encoder outputs.

    What stands behind an utterance's valid frames (NaN too) reaches neither outputs nor gradients.
    An utterance without a frame is decoded as if it had one frame of 0.
    """

    def __init__(
        self, config: DecoderConfig, vocab_size: int, memory_dim: int, sos_eos: int
    ) -> None:
        super().__init__()
        self.config, self.sos_eos = config, sos_eos
        self.embedding = nn.Embedding(vocab_size, config.dim)
        nn.init.normal_(self.embedding.weight, std=config.dim**-0.5)
        self.memory_projection = nn.Linear(memory_dim, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            DecoderLayer(config.dim, config.heads, config.feedforward, config.dropout)
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.dim)
        self.output = nn.Linear(config.dim, vocab_size)

    def forward(
        self, memory: Tensor, lens: Tensor, tokens: Tensor, token_lens: Tensor
    ) -> DecoderOutput:
        """memory (N, S, M) of lens (N,) frames, tokens (N, U) of token_lens (N,), padded with
        anything.
        """
        inputs, targets = self._shifted(tokens, token_lens)
        positions = torch.arange(inputs.shape[1], device=inputs.device)
        hidden = self._run(self._embed(inputs, positions), self._read(memory, lens), self._causal)
        log_probs = torch.log_softmax(self.output(hidden), dim=2, dtype=torch.float32)
        return DecoderOutput(log_probs, hidden, targets)

    def init_state(self, memory: Tensor, lens: Tensor) -> DecoderState:
        """One hypothesis per utterance, which has read nothing: memory (N, S, M), lens (N,)."""
        ready = map_tree(Tensor.contiguous, self._read(memory, lens))  # once, not at each step
        batch, heads, _, size = ready.layers[0].keys.shape
        empty = ready.layers[0].keys.new_zeros(batch, 1, heads, 0, size)
        position = torch.zeros(batch, dtype=torch.int64, device=memory.device)
        return DecoderState((KeyValue(empty, empty),) * len(self.layers), ready, position)

    def step(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Reads one more token of each hypothesis, at first `sos_eos`.

        Args:
            tokens: (N, K), or (N,) where K = 1.

        Returns:
            (N, K, V) or (N, V) float32 natural log-probabilities of the next token, and the state.
        """
        shape = state.caches[0].keys.shape
        if tokens.numel() != shape[0] * shape[1] or tokens.shape[0] != shape[0]:
            raise ValueError(
                f"tokens must be one for each of {shape[0]} x {shape[1]} hypotheses, "
                f"but have shape {tuple(tokens.shape)}"
            )
        x = self._embed(tokens.reshape(shape[:2]), state.position[:, None])
        age = torch.arange(shape[3], -1, -1, device=tokens.device)  # T ... 0 tokens ago
        visible = (age <= state.position[:, None])[:, None, None, None]  # (N, 1, 1, 1, T + 1)
        caches = []
        for layer, cache, read in zip(self.layers, state.caches, state.memory.layers):
            mixed, cache = self._mix_next(layer.project(x), cache, visible)
            x = layer.complete(x, mixed, read, state.memory.visible)
            caches.append(cache)
        log_probs = torch.log_softmax(self.output(self.norm(x)), dim=2, dtype=torch.float32)
        after = DecoderState(tuple(caches), state.memory, state.position + 1)
        return log_probs.reshape(*tokens.shape, -1), after

    def score_nbest(
        self,
        memory: Tensor,
        lens: Tensor,
        tokens: Tensor,
        token_lens: Tensor,
        owner: Tensor,
        max_positions: int = 4096,
    ) -> Tensor:
        """Log-probability of each hypothesis, its end included: (P,) float32.

        Args:
            memory: (N, S, M) of N utterances; lens: (N,).
            tokens: (P, U) padded with anything; token_lens: (P,), 0 allowed.
            owner: (P,) utterance of each hypothesis, in any order.
            max_positions: most token positions computed at once; bounds memory and changes nothing.
        """
        texts = [row[:n] for row, n in zip(tokens.tolist(), token_lens.tolist())]
        ready, device = self._read(memory, lens), memory.device
        frames = lens.tolist()
        scores = [torch.zeros(0, device=device)]
        order = [torch.zeros(0, dtype=torch.int64)]
        for chunk in prefix_chunks(texts, owner.tolist(), self.sos_eos, max_positions):
            span = max(1, *(frames[i] for i in chunk.owners.tolist()))
            scores.append(self._score(chunk, _part(ready, chunk.owners.to(device), span), texts))
            order.append(chunk.hypotheses)
        return torch.cat(scores)[torch.cat(order).argsort().to(device)]

    def _score(self, chunk: PrefixChunk, memory: Memory, texts: Sequence[Sequence[int]]) -> Tensor:
        """(R,) log-probabilities of the hypotheses of a chunk; memory is that of its G trees."""
        device = memory.visible.device
        paths, places = chunk.paths.to(device), chunk.places.to(device)

        def mix(qkv: Tensor) -> Tensor:
            texts_mixed = self._causal(qkv.flatten(0, 1)[paths])  # (G, M, 3 C) -> (R, L, C)
            return texts_mixed.flatten(0, 1)[places].view(*qkv.shape[:2], -1)  # (G, M, C)

        x = self._embed(chunk.tokens.to(device), chunk.depths.to(device))
        logits = self.output(self._run(x, memory, mix)).flatten(0, 1).float()  # (G M, V)
        nexts = [[*texts[i], self.sos_eos] for i in chunk.hypotheses.tolist()]
        padded = [text + [-1] * (paths.shape[1] - len(text)) for text in nexts]
        targets = torch.tensor(padded, device=device)
        log_probs = logits[paths, targets] - logits.logsumexp(dim=1)[paths]  # (R, L)
        return log_probs.masked_fill(targets < 0, 0.0).sum(dim=1)

    def _read(self, memory: Tensor, lens: Tensor) -> Memory:
        if not memory.shape[1]:
            memory = F.pad(memory, (0, 0, 0, 1))
        valid = torch.arange(memory.shape[1], device=lens.device)[None, :] < lens[:, None]
        clean = memory.masked_fill(~valid[:, :, None], 0.0)
        projected = self.memory_projection(clean)
        layers = tuple(layer.remember(projected) for layer in self.layers)
        return Memory(layers, valid | (lens == 0)[:, None])

    def _embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """tokens (N, Q) at positions (broadcast to them) -> (N, Q, C)."""
        dim = self.config.dim
        x = self.embedding(tokens) * math.sqrt(dim) + _sinusoids(positions, dim)
        return self.dropout(x)

    def _run(self, x: Tensor, memory: Memory, mix: Callable[[Tensor], Tensor]) -> Tensor:
        """All layers: x (N, Q, C) -> (N, Q, C); `mix` is the self-attention on (N, Q, 3 C)."""
        for layer, read in zip(self.layers, memory.layers):
            x = layer.complete(x, mix(layer.project(x)), read, memory.visible)
        return self.norm(x)

    def _causal(self, qkv: Tensor) -> Tensor:
        """(N, U, 3 C) -> (N, U, C): each position sees itself and those before it."""
        queries, keys, values = (by_head(x, self.config.heads) for x in qkv.chunk(3, dim=2))
        size = qkv.shape[1]
        visible = torch.ones(size, size, dtype=torch.bool, device=qkv.device).tril()
        return attend(queries, KeyValue(keys, values), visible, self.dropout)

    def _mix_next(self, qkv: Tensor, cache: KeyValue, visible: Tensor) -> tuple[Tensor, KeyValue]:
        """qkv (N, K, 3 C) of the newest tokens -> (N, K, C) and the cache with them."""
        batch, count, _ = qkv.shape
        # (N, K, 3 C) -> 3 x (N, K, H, 1, D)
        queries, keys, values = qkv.view(batch, count, 3, self.config.heads, 1, -1).unbind(2)
        cache = KeyValue(torch.cat([cache.keys, keys], 3), torch.cat([cache.values, values], 3))
        flat = map_tree(lambda leaf: leaf.flatten(0, 1), cache)
        rows = visible.expand(-1, count, -1, -1, -1).flatten(0, 1)  # (N K, 1, 1, T + 1)
        mixed = attend(queries.flatten(0, 1), flat, rows, self.dropout)
        return mixed.view(batch, count, -1), cache

    def _shifted(self, tokens: Tensor, token_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (N, U + 1) begin with sos; targets (N, U + 1) end with eos, then -1."""
        index = torch.arange(tokens.shape[1] + 1, device=tokens.device)[None, :]
        inputs = F.pad(tokens, (1, 0), value=self.sos_eos)
        inputs = inputs.masked_fill(index > token_lens[:, None], self.sos_eos)
        targets = F.pad(tokens, (0, 1), value=-1)
        targets = targets.masked_fill(index == token_lens[:, None], self.sos_eos)
        return inputs, targets.masked_fill(index > token_lens[:, None], -1)


def _part(memory: Memory, index: Tensor, frames: int) -> Memory:
    """The first `frames` of the utterances `index`."""
    layers = map_tree(lambda leaf: leaf[index, :, :frames], memory.layers)
    return Memory(layers, memory.visible[index, :frames])


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


def _sinusoids(positions: Tensor, dim: int) -> Tensor:
    """positions (...) -> (..., C) (Vaswani et al. 2017, section 3.5)."""
    channels = torch.arange(0, dim, 2, device=positions.device)
    angle = positions[..., None] * torch.exp(channels * (-math.log(10000.0) / dim))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)
