"""Offline decoding loop with a fake model and the greedy search."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from dualasr_lib.decoding.greedy import greedy_search
from dualasr_lib.decoding.hypothesis import Hypothesis, ScoredText, TokenPath
from dualasr_lib.decoding.offline import Heard, Searched, decode_batches


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


def hear(batch: FakeBatch) -> Heard:
    log_probs = torch.nn.functional.one_hot(batch.tokens, 5).float().log_softmax(dim=2)
    return Heard({"ctc": log_probs}, batch.lens, texts=batch.texts)


def detokenise(tokens: object) -> str:
    return "".join("_あいうえ"[token] for token in tokens)  # type: ignore[attr-defined]


def test_hypotheses_and_totals() -> None:
    seen: list[str] = []

    def on_batch(hypotheses: object) -> None:
        seen.extend(item.id for item in hypotheses)  # type: ignore[attr-defined]

    decoded = decode_batches(BATCHES, hear, greedy_search, detokenise, on_batch)
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
    def search(heard: Heard) -> Searched:
        return Searched([TokenPath((), (), 0.0)] * len(heard.lens), fallbacks=2)

    assert decode_batches(BATCHES, hear, search, detokenise).fallbacks == 4


def test_nothing_to_decode() -> None:
    decoded = decode_batches([], hear, greedy_search, detokenise)
    assert decoded.hypotheses == []
    assert decoded.rtf is None


def test_a_path_too_few() -> None:
    def search(heard: Heard) -> Searched:
        return Searched([])

    with pytest.raises(ValueError, match="0 paths for 2"):
        decode_batches(BATCHES, hear, search, detokenise)


def test_gradients_are_off() -> None:
    def needs_gradient(batch: FakeBatch) -> Heard:
        weight = torch.ones(1, requires_grad=True)
        assert not (weight * 2).requires_grad
        return hear(batch)

    decoded = decode_batches(BATCHES[1:], needs_gradient, greedy_search, detokenise)
    assert isinstance(decoded.hypotheses[0], Hypothesis)


def test_nbest_lists_go_to_their_utterances() -> None:
    def search(heard: Heard) -> Searched:
        rows = heard.log_probs.argmax(dim=2).tolist()
        lists = [
            (ScoredText(tuple(row), {"ctc": -1.0}), ScoredText((), {"ctc": -2.0})) for row in rows
        ]
        return Searched(greedy_search(heard).paths, 0, lists)

    decoded = decode_batches(BATCHES, hear, search, detokenise)
    assert [h.nbest[0].tokens for h in decoded.hypotheses] == [(1, 0, 2), (3, 3, 1), (4,)]
    assert all(len(h.nbest) == 2 for h in decoded.hypotheses)
    plain = decode_batches(BATCHES, hear, greedy_search, detokenise)
    assert all(h.nbest == () for h in plain.hypotheses)
