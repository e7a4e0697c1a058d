"""Log-probs for lattice tests."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor


@pytest.fixture
def make_log_probs() -> Callable[..., Tensor]:
    """(num_frames, vocab_size, seed, spread) -> (S, V): many blanks, some frames repeated."""

    def make(num_frames: int, vocab_size: int, seed: int, spread: float = 4.0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(num_frames, vocab_size, generator=generator) * spread
        logits[:, 0] += spread
        repeat = torch.rand(num_frames, generator=generator) < 0.3
        for frame in range(1, num_frames):
            if repeat[frame]:
                logits[frame] = logits[frame - 1]
        return logits.log_softmax(dim=1)

    return make
