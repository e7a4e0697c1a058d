"""`Batch`: what one training or decoding step sees, and how single utterances are padded into it.

Letters: N batch, T feature frames (100 Hz), U tokens. Left out: where utterances come from.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dualasr_lib.core.silence import LOG_MEL_SILENCE

__all__ = ["Batch", "Example", "collate"]


class Example(NamedTuple):
    """One utterance, ready to be padded."""

    id: str
    text: str
    duration: float  # seconds
    features: Tensor  # (T, 80) float32
    tokens: tuple[int, ...]


class Batch(NamedTuple):
    """N utterances, padded on the right."""

    features: Tensor  # (N, T, 80) float32, LOG_MEL_SILENCE after the end
    feature_lens: Tensor  # (N,) int64
    tokens: Tensor  # (N, U) int64, 0 after the end
    token_lens: Tensor  # (N,) int64
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    durations: tuple[float, ...]  # seconds

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with its tensors on `device`."""
        return self._replace(
            features=self.features.to(device, non_blocking=True),
            feature_lens=self.feature_lens.to(device, non_blocking=True),
            tokens=self.tokens.to(device, non_blocking=True),
            token_lens=self.token_lens.to(device, non_blocking=True),
        )


def collate(examples: Sequence[Example]) -> Batch:
    """Pads examples into a batch, in the given order.

    Raises:
        ValueError: no example at all.
    """
    if not examples:
        raise ValueError("a batch needs at least one example, got none")
    feature_lens = [len(example.features) for example in examples]
    token_lens = [len(example.tokens) for example in examples]
    num_bins = examples[0].features.shape[1]
    features = torch.full((len(examples), max(feature_lens), num_bins), LOG_MEL_SILENCE)
    tokens = torch.zeros(len(examples), max(token_lens), dtype=torch.int64)
    for i, example in enumerate(examples):
        features[i, : feature_lens[i]] = example.features
        tokens[i, : token_lens[i]] = torch.tensor(example.tokens, dtype=torch.int64)
    return Batch(
        features=features,
        feature_lens=torch.tensor(feature_lens),
        tokens=tokens,
        token_lens=torch.tensor(token_lens),
        ids=tuple(example.id for example in examples),
        texts=tuple(example.text for example in examples),
        durations=tuple(example.duration for example in examples),
    )
