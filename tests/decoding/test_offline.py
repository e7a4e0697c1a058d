"""Offline decoding loop with a fake model and the greedy search."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from dualasr_lib.decoding.greedy import GreedyPath, GreedyResult, greedy_search
from dualasr_lib.decoding.hypothesis import Hypothesis
from dualasr_lib.decoding.offline import decode_batches


class FakeBatch(NamedTuple):
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    durations: tuple[float, ...]
    tokens: Tensor
    lens: Tensor


BATCHES = [
    FakeBatch(
        ("a", "b"),
        ("あい", "う"),
        (0.5, 0.25),
        torch.tensor([[1, 0, 2], [3, 3, 1]]),
        torch.tensor([3, 2]),
    ),
    FakeBatch(("c",), ("え",), (1.0,), torch.tensor([[4]]), torch.tensor([1])),
]


def log_probs(batch: FakeBatch) -> tuple[Tensor, Tensor]:
    return torch.nn.functional.one_hot(batch.tokens, 5).float().log_softmax(dim=2), batch.lens


def detokenise(tokens: object) -> str:
    return "".join("_あいうえ"[token] for token in tokens)  # type: ignore[attr-defined]


def test_hypotheses_and_totals() -> None:
    seen: list[str] = []

    def on_batch(hypotheses: object) -> None:
        seen.extend(item.id for item in hypotheses)  # type: ignore[attr-defined]

    decoded = decode_batches(BATCHES, log_probs, greedy_search, detokenise, on_batch)
    assert [(h.id, h.text, h.ref) for h in decoded.hypotheses] == [
        ("a", "あい", "あい"),
        ("b", "う", "う"),
        ("c", "え", "え"),
    ]
    assert decoded.hypotheses[0].path.frames == (0, 2)
    assert seen == ["a", "b", "c"]
    assert decoded.audio_seconds == 1.75
    assert decoded.rtf == decoded.compute_seconds / 1.75 > 0
    assert decoded.num_threads == torch.get_num_threads()


def test_fallbacks_are_summed() -> None:
    def search(log_probs: Tensor, lens: Tensor) -> GreedyResult:
        return GreedyResult([GreedyPath((), (), 0.0)] * len(lens), fallbacks=2)

    assert decode_batches(BATCHES, log_probs, search, detokenise).fallbacks == 4


def test_nothing_to_decode() -> None:
    decoded = decode_batches([], log_probs, greedy_search, detokenise)
    assert decoded.hypotheses == []
    assert decoded.rtf is None


def test_a_path_too_few() -> None:
    def search(log_probs: Tensor, lens: Tensor) -> GreedyResult:
        return GreedyResult([])

    with pytest.raises(ValueError, match="0 paths for 2"):
        decode_batches(BATCHES, log_probs, search, detokenise)


def test_gradients_are_off() -> None:
    def needs_gradient(batch: FakeBatch) -> tuple[Tensor, Tensor]:
        weight = torch.ones(1, requires_grad=True)
        assert not (weight * 2).requires_grad
        return log_probs(batch)

    hypothesis = decode_batches(BATCHES[1:], needs_gradient, greedy_search, detokenise).hypotheses[
        0
    ]
    assert isinstance(hypothesis, Hypothesis)
