"""Weighted sums, the search for weights, and what passes through unchanged; with fakes for model
and language models.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pytest
import torch

from dualasr_lib.decoding.hypothesis import ScoredText, TokenPath
from dualasr_lib.decoding.offline import Heard
from dualasr_lib.decoding.rescoring import (
    NbestCandidates,
    Proposals,
    Propose,
    Scales,
    rescored,
    tune,
)


class FakeBatch(NamedTuple):
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    durations: tuple[float, ...]


def detokenise(tokens: Sequence[int]) -> str:
    return "".join("_abc"[token] for token in tokens)


def frames_of(tokens: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(range(len(tokens)))


def hear(batch: FakeBatch) -> Heard:
    size = len(batch.ids)
    return Heard(
        {"ctc": torch.zeros(size, 1, 4)}, torch.ones(size, dtype=torch.int64), texts=batch.texts
    )


def scored(tokens: tuple[int, ...], ctc: float, **others: float) -> ScoredText:
    return ScoredText(tokens, {"ctc": ctc, **others})


TEXTS = (
    scored((1,), -1.0, lm=-9.0, attention=-3.0),
    scored((2,), -2.0, lm=-1.0, attention=-8.0),
    scored((3,), -4.0, lm=-7.0, attention=-1.0),
)
GRID = tuple(Scales(lm=a, attention=b) for a in (0.0, 0.5, 1.0, 2.0) for b in (0.0, 1.0, 5.0))


def proposing(texts: Sequence[ScoredText] = TEXTS, fallbacks: int = 0) -> Propose:
    def propose(heard: Heard) -> Proposals:
        lists = [NbestCandidates(texts, frames_of) for _ in heard.lens]
        return Proposals(lists, fallbacks)

    return propose


def test_total_is_the_weighted_sum() -> None:
    text = scored((1,), -1.5, lm=-2.0, attention=-4.0)
    assert Scales().total(text) == -1.5
    assert Scales(lm=0.5).total(text) == -2.5
    assert Scales(lm=0.5, attention=2.0).total(text) == -10.5
    assert Scales(lm=0.5, attention=2.0).total(scored((1,), -1.5)) == -1.5
    assert Scales(lm=0.5, attention=2.0).total(scored((1,), -1.5, attention=-4.0)) == -9.5


def test_a_weight_of_zero_asks_nobody() -> None:
    """Minus infinity too: a text that the language model cannot read."""
    text = scored((1,), -1.5, lm=-math.inf, attention=-4.0)
    assert Scales(attention=1.0).total(text) == -5.5
    assert Scales(lm=0.1, attention=1.0).total(text) == -math.inf


@pytest.mark.parametrize("scales", GRID)
def test_best_and_ranked(scales: Scales) -> None:
    asked: list[tuple[int, ...]] = []

    def align(tokens: tuple[int, ...]) -> tuple[int, ...]:
        asked.append(tokens)
        return (7,)

    candidates = NbestCandidates(TEXTS, align)
    lm, attention = scales.weight("lm"), scales.weight("attention")
    sums = {
        t.tokens: t.scores["ctc"] + lm * t.scores["lm"] + attention * t.scores["attention"]
        for t in TEXTS
    }
    expected = sorted(sums, key=lambda tokens: -sums[tokens])
    assert [text.tokens for text in candidates.ranked(scales)] == expected
    assert asked == []
    assert candidates.best(scales) == TokenPath(expected[0], (7,), sums[expected[0]])
    candidates.best(scales)
    assert asked == [expected[0]]  # the winner, once


def test_of_equals_the_first() -> None:
    equal = [scored((2,), -1.0), scored((1,), -1.0)]
    candidates = NbestCandidates(equal, frames_of)
    assert candidates.best(Scales()).tokens == (2,)
    assert candidates.ranked(Scales()) == tuple(equal)


def test_any_head_has_a_score_and_a_weight() -> None:
    """CTC's weight is 1 unless somebody says otherwise, that of all others 0."""
    text = ScoredText((1,), {"ctc": -1.5, "transducer": -4.0, "lm": -2.0})
    assert Scales(transducer=0.5).total(text) == -3.5
    assert Scales(ctc=0.0, transducer=1.0).total(text) == -4.0
    assert Scales(ctc=2.0).total(text.scored("attention", -9.0)) == -3.0
    without = ScoredText((1,), {"transducer": -4.0, "lm": -2.0})
    assert Scales().total(without) == -4.0
    assert Scales(lm=0.5).total(without) == -5.0
    assert Scales(transducer=0.5, lm=0.5).total(without) == -3.0
    assert Scales(attention=1.0).total(text.scored("attention", -9.0)) == -10.5
    assert Scales(transducer=1.0).total(ScoredText((1,), {"transducer": -4.0})) == -4.0


def test_scales_are_values() -> None:
    """A weight that says what is so anyway changes nothing."""
    assert Scales() == Scales(lm=0.0, ctc=1.0) != Scales(ctc=0.0)
    assert len({Scales(lm=1.0, attention=0.0), Scales(lm=1.0), Scales(attention=1.0)}) == 2
    assert dict(Scales(lm=1, ctc=1.0, attention=0.5)) == {"lm": 1.0, "attention": 0.5}
    assert str(Scales(lm=0.25)) == "Scales(lm=0.25)"
    assert [Scales(ctc=0.0, lm=0.5).weight(name) for name in ("ctc", "lm", "x")] == [0.0, 0.5, 0.0]


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_scales_are_numbers_from_zero_on(value: float) -> None:
    for name in ("lm", "attention", "ctc"):
        with pytest.raises(ValueError, match=f"{name}={value}"):
            Scales(**{name: value})


def test_rescored_passes_everything_on() -> None:
    search = rescored(proposing(fallbacks=3), Scales(attention=1.0))
    found = search(hear(FakeBatch(("a", "b"), ("", ""), (1.0, 1.0))))
    assert found.paths == [TokenPath((1,), (0,), -4.0)] * 2
    assert found.fallbacks == 3
    order = [TEXTS[0], TEXTS[2], TEXTS[1]]
    assert [list(texts) for texts in found.nbest] == [order] * 2


class Unlisted:
    """Candidates that are no list: a search that takes the weight as its option."""

    def best(self, scales: Scales) -> TokenPath:
        return TokenPath((1,) if scales.weight("lm") < 0.7 else (2, 2), (0,), 0.0)

    def ranked(self, scales: Scales) -> tuple[ScoredText, ...]:
        return ()


def test_candidates_need_no_list() -> None:
    search = rescored(lambda heard: Proposals([Unlisted()], 0), Scales(lm=1.0))
    found = search(hear(FakeBatch(("a",), ("",), (1.0,))))
    assert found.paths[0].tokens == (2, 2)
    assert list(found.nbest) == [()]


class Counting:
    """A fake model that counts what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, ...]] = []

    def __call__(self, batch: FakeBatch) -> Heard:
        weight = torch.ones(1, requires_grad=True)
        assert not (weight * 2).requires_grad
        self.heard.append(batch.ids)
        return hear(batch)


def batches(*refs: str) -> Iterator[FakeBatch]:
    for index, ref in enumerate(refs):
        yield FakeBatch((f"u{index}", f"v{index}"), (ref, ref), (1.0, 1.0))


@pytest.mark.parametrize(("ref", "token"), [("a", 1), ("b", 2), ("c", 3)])
def test_tune_finds_the_lowest_error_rate(ref: str, token: int) -> None:
    """Of equals the smallest scales; the error rate is that of a decoding with each point."""
    model = Counting()
    tuned = tune(batches(ref, ref, ref), model, proposing(fallbacks=2), GRID, detokenise)
    assert model.heard == [("u0", "v0"), ("u1", "v1"), ("u2", "v2")]  # each once
    assert tuned.fallbacks == 6
    assert [point.scales for point in tuned.grid] == list(GRID)
    for point in tuned.grid:
        best = NbestCandidates(TEXTS, frames_of).best(point.scales)
        assert point.cer == float(best.tokens != (token,))
    right = [point.scales for point in tuned.grid if point.cer == 0.0]
    assert tuned.scales in right
    smallest = min(scales.weight("lm") + scales.weight("attention") for scales in right)
    assert sum(tuned.scales.values()) == smallest


def test_error_rates_count_characters_not_utterances() -> None:
    """A long utterance that is right for one point outweighs a short one."""
    texts = [scored((1,) * 9, -1.0, lm=-5.0), scored((2,), -2.0, lm=0.0)]
    data = [
        FakeBatch(("long",), ("a" * 9,), (1.0,)),
        FakeBatch(("short",), ("b",), (1.0,)),
    ]
    tuned = tune(data, hear, proposing(texts), (Scales(), Scales(lm=1.0)), detokenise)
    assert [point.cer for point in tuned.grid] == [(0 + 9) / 10, (9 + 0) / 10]
    assert tuned.scales == Scales()
    data[0] = FakeBatch(("long",), ("b" * 5,), (1.0,))
    tuned = tune(data, hear, proposing(texts), (Scales(), Scales(lm=1.0)), detokenise)
    assert [point.cer for point in tuned.grid] == [(9 + 9) / 6, (4 + 0) / 6]
    assert tuned.scales == Scales(lm=1.0)


def test_tune_without_lists() -> None:
    data = batches("bb")
    grid = (Scales(), Scales(lm=0.5), Scales(lm=1.0), Scales(lm=2.0))
    propose: Any = lambda heard: Proposals([Unlisted()] * len(heard.lens), 0)  # noqa: E731
    assert tune(data, hear, propose, grid, detokenise).scales == Scales(lm=1.0)


def test_what_cannot_be_tuned() -> None:
    with pytest.raises(ValueError, match="at least one point"):
        tune(batches("a"), hear, proposing(), (), detokenise)
    with pytest.raises(ValueError, match="no reference text; give them"):
        tune(batches(""), hear, proposing(), GRID, detokenise)
    with pytest.raises(ValueError, match="no reference text; give them"):
        tune([], hear, proposing(), GRID, detokenise)
