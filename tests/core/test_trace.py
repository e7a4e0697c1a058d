"""Shared chains against plain tuples."""

import gc
import random
import weakref
from typing import Any

import pytest

from dualasr_lib.core.trace import Trace, common_depth, common_tokens, emitted, extended


def slow_common(texts: list[tuple[int, ...]]) -> int:
    count = 0
    while all(len(text) > count for text in texts) and len({text[count] for text in texts}) == 1:
        count += 1
    return count


@pytest.mark.parametrize("seed", range(20))
def test_a_beam_of_hypotheses(seed: int) -> None:
    """Tokens are all different, so equal beginnings are shared ones."""
    rng = random.Random(seed)
    beam: list[tuple[Trace | None, tuple[int, ...]]] = [(None, ())]
    for frame in range(60):
        parents = rng.choices(beam, k=rng.randrange(1, 6))
        beam = []
        for number, (trace, text) in enumerate(parents):
            if rng.random() < 0.4:
                token = frame * 10 + number
                trace, text = extended(trace, token, frame), (*text, token)
            beam.append((trace, text))
        for trace, text in beam:
            assert emitted(trace) == (text, tuple(token // 10 for token in text))
            assert (0 if trace is None else trace.depth) == len(text)
        texts = [text for _, text in beam]
        assert common_depth(trace for trace, _ in beam) == slow_common(texts)


def test_extending_leaves_the_others_alone() -> None:
    one = extended(None, 5, 2)
    left, right = extended(one, 6, 3), extended(one, 7, 3)
    assert emitted(one) == ((5,), (2,))
    assert emitted(left) == ((5, 6), (2, 3))
    assert emitted(right) == ((5, 7), (2, 3))
    assert left.parent is right.parent is one


def test_equal_tokens_of_different_making_do_not_count() -> None:
    first, second = extended(None, 5, 2), extended(None, 5, 2)
    assert first == second
    assert common_depth([first, second]) == 0
    assert common_depth([first, first]) == 1


@pytest.mark.parametrize("seed", range(20))
def test_equal_tokens_whoever_made_them(seed: int) -> None:
    """Of few different tokens, so that many beginnings are alike by chance."""
    rng = random.Random(seed)
    beam: list[tuple[Trace | None, tuple[int, ...]]] = [(None, ())]
    for frame in range(60):
        parents, beam = rng.choices(beam, k=rng.randrange(1, 4)), []
        for trace, text in parents:
            token = rng.choice((1, 1, 1, 2))
            beam.append((extended(trace, token, frame), (*text, token)))
        texts = [text for _, text in beam]
        assert common_tokens([trace for trace, _ in beam]) == slow_common(texts)
    assert common_tokens([None, *(trace for trace, _ in beam)]) == 0


def test_common_depth_of_few() -> None:
    one = extended(None, 1, 0)
    two = extended(one, 2, 1)
    assert common_depth([]) == 0
    assert common_depth([None]) == 0
    assert common_depth([two]) == 2
    assert common_depth([two, one]) == 1
    assert common_depth([two, None]) == 0


def test_a_long_chain_needs_no_recursion() -> None:
    trace = None
    for number in range(20000):
        trace = extended(trace, number, number)
    assert emitted(trace).tokens == tuple(range(20000))
    assert common_depth([trace, extended(trace, 1, 1)]) == 20000


class _Token:
    """A token that can be watched, as numbers cannot."""


def test_what_nobody_holds_is_freed() -> None:
    token: Any = _Token()
    watched = weakref.ref(token)
    trace = extended(extended(None, 1, 0), token, 1)
    kept = trace.parent
    del token
    assert watched() is not None
    del trace
    gc.collect()
    assert watched() is None
    assert emitted(kept) == ((1,), (0,))
