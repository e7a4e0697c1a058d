"""Memory fall-backs: what is caught, what is repeated, and that it is counted."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

pytest.importorskip("k2")

from dualasr_lib.core.memory import is_memory_error
from dualasr_lib.lattice.fallback import each_utterance, with_fallbacks
from dualasr_lib.lattice.path import Path, SearchConfig
from dualasr_lib.lattice.search import one_best


class Found(NamedTuple):
    """What the fake search says of an utterance."""

    size: int
    beam: float
    max_tokens: int


class Limited:
    """A search that has memory for `frames` x `beam` only; one token per frame counts 0.5."""

    def __init__(self, capacity: float, error: BaseException) -> None:
        self.capacity = capacity
        self.error = error

    def __call__(self, log_probs: Tensor, lens: Tensor, config: SearchConfig) -> list[Found]:
        width = 0.5 if config.max_tokens == 1 else config.output_beam
        if int(lens.sum()) * width > self.capacity:
            raise self.error
        assert len(log_probs) == len(lens)
        return [Found(int(length), config.output_beam, config.max_tokens) for length in lens]


OUT_OF_MEMORY = RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
LENS = torch.tensor([9, 7, 5, 1])
LOG_PROBS = torch.zeros(4, 9, 2)
CONFIG = SearchConfig(output_beam=8.0, max_tokens=50)


@pytest.mark.parametrize(
    ("capacity", "fallbacks", "beams", "tokens"),
    [
        (1000, 0, [8, 8, 8, 8], [50, 50, 50, 50]),
        (128, 1, [8, 8, 8, 8], [50, 50, 50, 50]),  # 9 + 7 fit at beam 8, and so do 5 + 1
        (72, 2, [8, 8, 8, 8], [50, 50, 50, 50]),
        (50, 4, [4, 4, 8, 8], [50, 50, 50, 50]),  # batch, its first half, the beam of 9 and of 7
        # Three halves; 9 and 7 go down to beam 1 and one token per frame, 5 to 1, 1 to 4.
        (5, 3 + 4 + 4 + 3 + 1, [1, 1, 1, 4], [1, 1, 50, 50]),
    ],
)
def test_halves_the_batch_then_the_beam(
    capacity: float, fallbacks: int, beams: list[float], tokens: list[int]
) -> None:
    result = with_fallbacks(Limited(capacity, OUT_OF_MEMORY), LOG_PROBS, LENS, CONFIG)
    assert [found.size for found in result.results] == LENS.tolist()  # order kept
    assert [found.beam for found in result.results] == beams
    assert [found.max_tokens for found in result.results] == tokens
    assert result.fallbacks == fallbacks


def test_utterances_without_frames_are_not_searched() -> None:
    lens = torch.tensor([0, 9, 0, 7, 5, 1, 0])
    log_probs = torch.zeros(7, 9, 2)
    result = each_utterance(Limited(128, OUT_OF_MEMORY), log_probs, lens, CONFIG)
    assert [found and found.size for found in result.results] == [None, 9, None, 7, 5, 1, None]
    assert result.fallbacks == 1
    nothing = each_utterance(Limited(0, OUT_OF_MEMORY), log_probs[:1], lens[:1], CONFIG)
    assert nothing == ([None], 0)


def test_real_searches_fall_back_to_the_same_paths(make_log_probs: Callable[..., Tensor]) -> None:
    """A smaller lattice still has the best path, down to one token per frame."""
    log_probs = torch.stack([make_log_probs(20, 9, seed) for seed in range(4)])
    lens = torch.tensor([20, 3, 0, 11])
    expected = one_best(log_probs, lens, SearchConfig()).paths

    def limited(rows: Tensor, sizes: Tensor, config: SearchConfig) -> list[Path]:
        if config.max_tokens > 1:
            raise OUT_OF_MEMORY
        return one_best(rows, sizes, config).paths

    found = each_utterance(limited, log_probs, lens, SearchConfig())
    assert [path or Path((), (), 0.0) for path in found.results] == expected
    assert found.fallbacks > 3


def test_gives_up_with_a_clear_error() -> None:
    with pytest.raises(MemoryError, match="9 frames ran out of memory with one token per frame"):
        with_fallbacks(Limited(0.0, MemoryError()), LOG_PROBS, LENS, CONFIG)


def test_other_errors_go_through() -> None:
    bug = RuntimeError("shape mismatch")
    with pytest.raises(RuntimeError, match="shape mismatch"):
        with_fallbacks(Limited(0.0, bug), LOG_PROBS, LENS, CONFIG)
    with pytest.raises(ValueError, match="memory"):
        with_fallbacks(Limited(0.0, ValueError("out of memory")), LOG_PROBS, LENS, CONFIG)


def test_real_allocation_failures_are_recognised() -> None:
    with pytest.raises(RuntimeError) as failure:
        torch.empty(1 << 60)
    assert is_memory_error(failure.value)
    assert not is_memory_error(RuntimeError("Some bad things happened"))
