"""One pre-norm layer of the attention decoder, in two halves around its self-attention.

Who attends to what differs between teacher forcing, search and n-best scoring, so the caller mixes
the values: `project` gives queries, keys and values of each position, `complete` takes the mixture
and does the rest. Keys and values of the memory are projected once, by `remember`.

Q positions of one utterance need not be one text: all of them read the same memory, nothing else
joins them here. Several hypotheses of an utterance are therefore simply more positions.

Letters: N utterances, Q positions, S encoder frames, H heads, D channels per head, C = H D.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["DecoderLayer", "KeyValue", "attend", "by_head"]

_SDPA = getattr(F, "scaled_dot_product_attention", None)  # torch 1.13 has none


class KeyValue(NamedTuple):
    """What attention reads."""

    keys: Tensor
    """(..., H, positions, D)."""
    values: Tensor
    """(..., H, positions, D)."""


class DecoderLayer(nn.Module):
    """x + self-attention, + attention to the memory, + feed-forward; each behind a LayerNorm."""

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.self_norm, self.memory_norm, self.feedforward_norm = (
            nn.LayerNorm(dim) for _ in range(3)
        )
        self.query_key_value = _projection(dim, 3)
        self.self_output = nn.Linear(dim, dim)
        self.memory_query = _projection(dim, 1)
        self.memory_key_value = _projection(dim, 2)
        self.memory_output = nn.Linear(dim, dim)
        self.expand = nn.Linear(dim, feedforward)
        self.contract = nn.Linear(feedforward, dim)
        for output in (self.self_output, self.memory_output):
            nn.init.zeros_(output.bias)

    def remember(self, memory: Tensor) -> KeyValue:
        """memory (N, S, C) -> keys and values (N, H, S, D)."""
        keys, values = self.memory_key_value(memory).chunk(2, dim=2)
        return KeyValue(by_head(keys, self.heads), by_head(values, self.heads))

    def project(self, x: Tensor) -> Tensor:
        """x (N, Q, C) -> queries, keys and values of the self-attention (N, Q, 3 C)."""
        return self.query_key_value(self.self_norm(x))

    def complete(self, x: Tensor, mixed: Tensor, memory: KeyValue, visible: Tensor) -> Tensor:
        """The layer's output (N, Q, C).

        Args:
            x: (N, Q, C) its input.
            mixed: (N, Q, C) values mixed by the self-attention.
            memory: of `remember`.
            visible: (N, S) bool, at least one True in each row.
        """
        x = x + self.dropout(self.self_output(mixed))
        queries = by_head(self.memory_query(self.memory_norm(x)), self.heads)
        read = attend(queries, memory, visible[:, None, None, :], self.dropout)
        x = x + self.dropout(self.memory_output(read))
        wide = self.dropout(F.silu(self.expand(self.feedforward_norm(x))))
        return x + self.dropout(self.contract(wide))


def attend(queries: Tensor, memory: KeyValue, visible: Tensor, dropout: nn.Dropout) -> Tensor:
    """Softmax attention (N, Q, C) of queries (N, H, Q, D).

    Args:
        visible: bool, broadcast to (N, H, Q, S): what each query may see; at least one.
        dropout: of the attention weights.
    """
    if _SDPA is not None:
        probability = dropout.p if dropout.training else 0.0
        mixed = _SDPA(queries, *memory, attn_mask=visible, dropout_p=probability)
    else:
        scores = queries @ memory.keys.transpose(2, 3) / math.sqrt(queries.shape[3])
        weights = scores.masked_fill(~visible, -math.inf).softmax(dim=3)
        mixed = dropout(weights) @ memory.values
    # (N, H, Q, D) -> (N, Q, H D)
    return mixed.transpose(1, 2).flatten(2)


def by_head(x: Tensor, heads: int) -> Tensor:
    """(N, Q, H D) -> (N, H, Q, D)."""
    batch, positions, channels = x.shape
    return x.reshape(batch, positions, heads, channels // heads).transpose(1, 2)


def _projection(dim: int, count: int) -> nn.Linear:
    """`count` projections in one layer, with the initial weights that torch's MultiheadAttention
    gives its three joined ones.
    """
    layer = nn.Linear(dim, count * dim)
    bound = math.sqrt(6.0 / (4 * dim))  # Glorot for (3 dim, dim)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound)
        layer.bias.zero_()
    return layer
