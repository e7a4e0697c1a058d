"""Alignment: against a plain recursive definition, and against kaldialign where it is installed."""

import functools
import random

import pytest

from dualasr_lib.metrics.alignment import Pair, align, distance


def slow_distance(ref: str, hyp: str) -> int:
    @functools.cache
    def d(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        diagonal = d(i - 1, j - 1) + (ref[i - 1] != hyp[j - 1])
        return min(diagonal, d(i - 1, j) + 1, d(i, j - 1) + 1)

    return d(len(ref), len(hyp))


def random_pairs(count: int) -> list[tuple[str, str]]:
    rng = random.Random(7)
    return [
        (
            "".join(rng.choices("あいう", k=rng.randrange(9))),
            "".join(rng.choices("あいう", k=rng.randrange(9))),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize(("ref", "hyp"), random_pairs(200))
def test_cost_and_contents(ref: str, hyp: str) -> None:
    pairs = align(ref, hyp)
    assert sum(a != b for a, b in pairs) == slow_distance(ref, hyp) == distance(ref, hyp)
    assert "".join(a for a, _ in pairs if a is not None) == ref
    assert "".join(b for _, b in pairs if b is not None) == hyp


def test_ties_are_broken_as_documented() -> None:
    assert align("あい", "い") == [Pair("あ", None), Pair("い", "い")]
    assert align("ああ", "あ") == [Pair("あ", None), Pair("あ", "あ")]
    assert align("", "あ") == [Pair(None, "あ")]
    assert align("", "") == []


def test_equals_kaldialign() -> None:
    kaldialign = pytest.importorskip("kaldialign")
    for ref, hyp in random_pairs(200):
        assert distance(ref, hyp) == kaldialign.edit_distance(list(ref), list(hyp))["total"]
