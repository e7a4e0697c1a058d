"""Memory fall-backs: what is caught, what is repeated, and that it is counted."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("k2")

from dualasr_lib.lattice.fallback import is_memory_error, with_fallbacks
from dualasr_lib.lattice.path import Path, SearchConfig


class Limited:
    """A search that has memory for `frames` x `beam` only."""

    def __init__(self, capacity: float, error: BaseException) -> None:
        self.capacity = capacity
        self.error = error

    def __call__(self, log_probs: Tensor, lens: Tensor, config: SearchConfig) -> list[Path]:
        if int(lens.sum()) * config.search_beam > self.capacity:
            raise self.error
        return [Path((int(length),), (0,), config.search_beam) for length in lens]


OUT_OF_MEMORY = RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
LENS = torch.tensor([9, 7, 5, 1])
LOG_PROBS = torch.zeros(4, 9, 2)


@pytest.mark.parametrize(
    ("capacity", "fallbacks", "scores"),
    [
        (1000, 0, [20, 20, 20, 20]),
        (320, 1, [20, 20, 20, 20]),  # 9 + 7 fit at beam 20, and so do 5 + 1
        (180, 2, [20, 20, 20, 20]),
        (125, 4, [10, 10, 20, 20]),  # batch, its first half, then the beam of 9 and of 7
    ],
)
def test_halves_the_batch_then_the_beam(
    capacity: float, fallbacks: int, scores: list[float]
) -> None:
    result = with_fallbacks(Limited(capacity, OUT_OF_MEMORY), LOG_PROBS, LENS, SearchConfig())
    assert [path.tokens[0] for path in result.paths] == LENS.tolist()  # order kept
    assert [path.score for path in result.paths] == scores
    assert result.fallbacks == fallbacks


def test_gives_up_with_a_clear_error() -> None:
    with pytest.raises(MemoryError, match="9 frames"):
        with_fallbacks(Limited(0.0, MemoryError()), LOG_PROBS, LENS, SearchConfig())


def test_other_errors_go_through() -> None:
    bug = RuntimeError("shape mismatch")
    with pytest.raises(RuntimeError, match="shape mismatch"):
        with_fallbacks(Limited(0.0, bug), LOG_PROBS, LENS, SearchConfig())
    with pytest.raises(ValueError, match="memory"):
        with_fallbacks(Limited(0.0, ValueError("out of memory")), LOG_PROBS, LENS, SearchConfig())


def test_real_allocation_failures_are_recognised() -> None:
    with pytest.raises(RuntimeError) as failure:
        torch.empty(1 << 60)
    assert is_memory_error(failure.value)
    assert not is_memory_error(RuntimeError("Some bad things happened"))
