"""Frames that a transducer's search leaves out: against the search on what is left."""

import random
from typing import Any

import pytest
import torch
from torch import Tensor
from transducer_searches import draw

from dualasr_lib.decoding.one_head import OneHead
from dualasr_lib.decoding.transducer.beam import TransducerBeam
from dualasr_lib.decoding.transducer.greedy import TransducerGreedy
from dualasr_lib.decoding.transducer.options import BeamConfig, GreedyConfig
from dualasr_lib.decoding.transducer.skipping import hearing, searched_frames

LENS = (20, 0, 33, 1, 7)
SKIP = 0.6


def searches(max_symbols: int) -> list[Any]:
    tables = draw(0).head.tables()
    return [
        TransducerGreedy(tables, GreedyConfig(max_symbols=max_symbols)),
        TransducerBeam(tables, BeamConfig(max_symbols=max_symbols)),
    ]


def heard(seed: int) -> list[dict[str, Tensor]]:
    """What both heads say; about half of the frames are surely blank by CTC."""
    generator = torch.Generator().manual_seed(seed)
    blank = [torch.rand(size, generator=generator).clamp(1e-3, 1 - 1e-3) for size in LENS]
    ctc = [torch.stack([p.log(), (1 - p).log()], dim=1) for p in blank]
    return [{"ctc": own, "transducer": rows} for own, rows in zip(ctc, draw(seed, LENS).frames)]


@pytest.mark.parametrize("max_symbols", [1, 3])
@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_the_rest_is_searched_as_if_there_were_nothing_else(
    seed: int, kind: int, max_symbols: int
) -> None:
    """The same tokens and score; their frames keep their numbers."""
    search, skipped = searches(max_symbols)[kind], 0
    hears = hearing(search, SKIP)
    for said in heard(seed):
        kept = said["ctc"][:, 0].exp() <= SKIP
        skipped += int((~kept).sum())
        (rest,) = search.step([said["transducer"][kept]], [search.open()])
        expected = search.finish(rest.state)
        state = hears.step([said], [hears.open()])[0].state
        found = hears.finish(state)
        places = kept.nonzero()[:, 0].tolist()
        assert found.tokens == expected.tokens and found.score == expected.score
        assert found.frames == tuple(places[frame] for frame in expected.frames)
        assert state.num_frames == len(kept)
    assert 10 < skipped < sum(LENS) - 10


@pytest.mark.parametrize("kind", [0, 1])
def test_chunks_and_company_change_no_bit(kind: int) -> None:
    search = hearing(searches(1)[kind], SKIP)
    rng, said = random.Random(kind), heard(4)
    at_once = search.step(said, [search.open()] * len(LENS))
    states, left = [search.open() for _ in LENS], [0] * len(LENS)
    while any(place < size for place, size in zip(left, LENS)):
        who = [i for i in range(len(LENS)) if rng.random() < 0.6]
        ends = {i: min(LENS[i], left[i] + rng.randint(0, 5)) for i in who}
        rows = [{head: x[left[i] : ends[i]] for head, x in said[i].items()} for i in who]
        for i, step in zip(who, search.step(rows, [states[i] for i in who]) if who else ()):
            states[i], left[i] = step.state, ends[i]
    assert [search.finish(s) for s in states] == [search.finish(s.state) for s in at_once]


def test_nothing_is_skipped_by_default() -> None:
    for search in searches(1):
        assert isinstance(hearing(search, 1.0), OneHead)
    assert searched_frames(heard(0), 1.0) is None


def test_refusals() -> None:
    with pytest.raises(ValueError, match="reads the ctc head of a branch, but this branch has tr"):
        searched_frames([{"transducer": torch.zeros(3, 16)}], 0.9)
    for value in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="`skip_blank` must be above 0 and at most 1, but is"):
            GreedyConfig(skip_blank=value)
