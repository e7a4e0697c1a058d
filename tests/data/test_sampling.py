"""Batches balanced over ranks: as many for each, and of similar lengths at each step."""

import random
import statistics
from collections.abc import Iterable
from typing import NamedTuple

import pytest

pytest.importorskip("lhotse")

from lhotse import CutSet
from lhotse.dataset import DynamicBucketingSampler
from lhotse.testing.dummies import dummy_cut

from dualasr_lib.data.sampling import TrainBatches, balanced_sampler

RANKS = 4
OPTIONS = {"max_duration": 100.0, "num_buckets": 10, "buffer_size": 20000, "seed": 1}

pytestmark = pytest.mark.filterwarnings(
    "ignore:You are using DynamicBucketingSampler with an eager"
)


class Share(NamedTuple):
    """What one rank does in one step."""

    ids: list[str]
    longest: float
    padded: float


@pytest.fixture(scope="module")
def cuts() -> CutSet:
    """3000 utterances of 0.3 to 30 s, half of them below 3.3 s, about as in lectures."""
    rng = random.Random(0)
    durations = [min(30.0, max(0.3, rng.lognormvariate(1.2, 0.8))) for _ in range(3000)]
    items = [dummy_cut(i, start=0.0, duration=round(d, 2)) for i, d in enumerate(durations)]
    return CutSet.from_cuts(items)


def _shares(sampler: Iterable[CutSet]) -> list[Share]:
    shares = []
    for batch in sampler:
        longest = max(cut.duration for cut in batch)
        shares.append(Share([cut.id for cut in batch], longest, longest * len(batch)))
    return shares


def _wait(values: list[float]) -> float:
    """1 = nobody waits; 2 = the slowest takes twice the mean."""
    return max(values) / statistics.mean(values)


def test_ranks_get_similar_batches(cuts: CutSet) -> None:
    ranks = [
        _shares(balanced_sampler(cuts, rank=rank, world_size=RANKS, **OPTIONS))
        for rank in range(RANKS)
    ]
    assert len({len(shares) for shares in ranks}) == 1
    steps = list(zip(*ranks))
    ids = [name for shares in ranks for share in shares for name in share.ids]
    assert {cut.id for cut in cuts} <= set(ids)
    assert len(ids) - len(cuts) < RANKS  # the last step may repeat some
    longest = [_wait([share.longest for share in step]) for step in steps]
    assert max(longest[:-3]) < 1.5  # 30 s and 16 s share the last bucket; the end is uneven
    assert statistics.mean(longest[:-3]) < 1.1
    slowest = sum(max(share.padded for share in step) for step in steps)
    mean = sum(statistics.mean(share.padded for share in step) for step in steps)
    assert slowest / mean < 1.06  # of the whole epoch's time


def test_ranks_that_draw_buckets_on_their_own_would_not(cuts: CutSet) -> None:
    """What the test above would find without the balance."""
    options = OPTIONS | {"shuffle": True, "sync_buckets": False, "world_size": RANKS}
    ranks = [_shares(DynamicBucketingSampler(cuts, rank=r, **options)) for r in range(RANKS)]
    longest = [_wait([share.longest for share in step]) for step in zip(*ranks)]
    assert statistics.mean(longest) > 1.5


def test_fewer_utterances_than_ranks_still_give_each_a_batch(cuts: CutSet) -> None:
    few = cuts.subset(first=3)
    options = OPTIONS | {"num_buckets": 2}
    ranks = [
        _shares(balanced_sampler(few, rank=rank, world_size=8, **options)) for rank in range(8)
    ]
    assert [len(shares) for shares in ranks] == [1] * 8
    assert all(len(shares[0].ids) == 1 for shares in ranks)


def test_a_state_of_other_options_says_what_to_do(cuts: CutSet) -> None:
    sampler = balanced_sampler(cuts, rank=0, world_size=1, **OPTIONS)
    old, new = (TrainBatches(sampler, pytest.fail, 0, name) for name in ("1f", "2e"))
    old.set_epoch(3)
    with pytest.raises(ValueError, match=r"keep them until .*, or remove .*epoch-3-step-\*\.pt"):
        new.load_state_dict(old.state_dict())
