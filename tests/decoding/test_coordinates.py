"""Weights found one at a time: against the whole grid, and what must hold on the way."""

import math
import random
from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import pytest
import torch

from dualasr_lib.decoding.coordinates import any_weight, descend, tune_by_coordinates
from dualasr_lib.decoding.hypothesis import ScoredText
from dualasr_lib.decoding.offline import Heard
from dualasr_lib.decoding.rescoring import NbestCandidates, Proposals, Scales, best_point, tune

AXES = {"lm": (0.0, 0.5, 1.0, 2.0), "ctc": (1.0, 0.0), "attention": (0.0, 0.3, 1.0, 4.0)}


class FakeBatch(NamedTuple):
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    durations: tuple[float, ...]


def detokenise(tokens: Sequence[int]) -> str:
    return "".join("_abc"[token] for token in tokens)


def hear(batch: FakeBatch) -> Heard:
    size = len(batch.ids)
    return Heard({}, torch.ones(size, dtype=torch.int64), texts=batch.texts)


def batches(rng: random.Random, count: int = 40) -> list[FakeBatch]:
    texts = ["".join(rng.choices("abc", k=4)) for _ in range(count)]
    return [FakeBatch(("x", "y"), pair, (1.0, 1.0)) for pair in zip(texts[::2], texts[1::2])]


def listed(rng: random.Random, ref: str) -> list[ScoredText]:
    """Texts near the reference; each score likes few errors, and is wrong in its own way."""
    texts = []
    for _ in range(6):
        said = [token if rng.random() < 0.7 else rng.randint(1, 3) for token in map(_token, ref)]
        wrong = sum(a != b for a, b in zip(said, map(_token, ref)))
        noise = {name: -2.0 * wrong + rng.gauss(0, size) for name, size in _NOISE.items()}
        texts.append(ScoredText(tuple(said), noise))
    return sorted(texts, key=lambda text: -text.scores["ctc"])


_NOISE = {"ctc": 6.0, "lm": 4.0, "attention": 1.0}


def _token(letter: str) -> int:
    return "_abc".index(letter)


class Proposing:
    """The same lists for the same batch whenever asked."""

    def __init__(self, seed: int) -> None:
        self.seed, self.asked = seed, 0

    def __call__(self, heard: Heard) -> Proposals:
        self.asked += 1
        lists = [listed(random.Random(f"{self.seed} {ref}"), ref) for ref in heard.texts]
        return Proposals([NbestCandidates(texts, lambda tokens: ()) for texts in lists], 1)


@pytest.mark.parametrize("seed", range(8))
def test_every_point_is_what_the_grid_says(seed: int) -> None:
    """The same error rate as `tune` finds at each point that is tried, one hearing per batch; and
    never worse than where it starts."""
    data, propose = batches(random.Random(seed)), Proposing(seed)
    found = tune_by_coordinates(data, hear, propose, AXES, detokenise)
    assert propose.asked == len(data) and found.fallbacks == len(data)
    tried = [point.scales for point in found.grid]
    slow = tune(data, hear, propose, tried, detokenise)
    assert [(p.scales, p.cer) for p in slow.grid] == [(p.scales, p.cer) for p in found.grid]
    assert found.scales == best_point(slow.grid).scales
    rates = {point.scales: point.cer for point in found.grid}
    assert rates[found.scales] <= min(rates[Scales()], rates[Scales(lm=1.0, attention=1.0)])
    every = [Scales(**dict(zip(AXES, point))) for point in product(*AXES.values())]
    best = tune(data, hear, propose, [s for s in every if any_weight(s, AXES)], detokenise)
    assert rates[found.scales] <= best_point(best.grid).cer + 0.05
    assert len(found.grid) == len(set(tried)) < len(every)


def test_a_bowl_has_one_bottom() -> None:
    """Where each weight has its best value whatever the others are, that point is found."""
    target = {"lm": 0.5, "ctc": 0.0, "attention": 4.0}

    def rate(scales: Scales) -> float:
        return sum(abs(scales.weight(name) - value) for name, value in target.items())

    points = descend(rate, AXES)
    assert best_point(points) == (Scales(**target), 0.0)


def test_of_equals_the_smallest_and_never_nothing() -> None:
    points = descend(lambda scales: 0.25, AXES)
    assert best_point(points).scales == Scales()
    assert Scales(ctc=0.0) not in [point.scales for point in points]
    with pytest.raises(ValueError, match="at least one axis"):
        descend(lambda scales: 0.0, {})


def test_the_second_start_leaves_a_ridge() -> None:
    """Neither score helps alone: from CTC alone no single step is better."""

    def rate(scales: Scales) -> float:
        both: Mapping[str, float] = {n: scales.weight(n) for n in ("lm", "attention")}
        if min(both.values()) >= 1.0:
            return 0.1
        return 0.5 + 0.1 * max(both.values())

    assert best_point(descend(rate, AXES)).scales == Scales(lm=1.0, attention=1.0)


def test_without_references() -> None:
    data = [FakeBatch(("x",), ("",), (1.0,))]

    def propose(heard: Heard) -> Proposals:
        return Proposals([NbestCandidates([ScoredText((1,), {"ctc": -1.0})], lambda t: ())], 0)

    with pytest.raises(ValueError, match="no reference text; give them"):
        tune_by_coordinates(data, hear, propose, AXES, detokenise)
    assert math.isfinite(Scales().total(ScoredText((1,), {"ctc": -1.0})))
