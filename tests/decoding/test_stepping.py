"""Windows: Kaldi's reflection at the end of the audio. Steps are tested with their loops."""

import pytest
import torch

from dualasr_lib.decoding.stepping import window


def slow_reflection(samples: list[float], position: int) -> float:
    """Kaldi's rule for snip_edges=false, one reflection at a time."""
    while not 0 <= position < len(samples):
        position = -position - 1 if position < 0 else 2 * len(samples) - 1 - position
    return samples[position]


@pytest.mark.parametrize("size", [1, 2, 5, 12, 40])
@pytest.mark.parametrize("start", [0, 3, 10])
def test_window(size: int, start: int) -> None:
    samples = torch.arange(size, dtype=torch.float32)
    got = window(samples, start, 12)
    expected = [slow_reflection(samples.tolist(), start + i) for i in range(12)]
    assert got.tolist() == expected
