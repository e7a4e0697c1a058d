"""Batches balanced over ranks: as many for each, and of similar lengths at each step."""

import random
import statistics
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

import pytest

pytest.importorskip("lhotse")

from lhotse import CutSet
from lhotse.dataset import DynamicBucketingSampler
from lhotse.testing.dummies import dummy_cut

from dualasr_lib.data.sampling import BatchKey, Dealt, TrainBatches, balanced_sampler

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
    old, new = (TrainBatches(sampler, pytest.fail, 0, name, pytest.fail) for name in ("1f", "2e"))
    old.set_epoch(3)
    with pytest.raises(ValueError, match=r"keep them until .*, or remove .*epoch-3-step-\*\.pt"):
        new.load_state_dict(old.state_dict())


class _Named(NamedTuple):
    """Instead of a batch: its place in the order (which its randomness follows), and its items."""

    place: tuple[int, int, int]
    ids: tuple[str, ...]


def _named(key: BatchKey) -> Any:
    return _Named(key.randomness, tuple(cut.id for cut in key.cuts))


def _batches(cuts: CutSet, ranks: int) -> list[TrainBatches]:
    """Those of each rank."""

    def deal(size: int) -> Dealt:
        samplers = [balanced_sampler(cuts, rank=r, world_size=size, **OPTIONS) for r in range(size)]
        return Dealt(samplers, f"{size} ranks")

    dealt = deal(ranks)
    return [TrainBatches(s, _named, 0, dealt.fingerprint, deal) for s in dealt.samplers]


def _take(batches: Sequence[TrainBatches], steps: int | None = None) -> list[Any]:
    """The first steps of an epoch or the rest of one, all ranks in turn."""
    taken = [list(islice(each, steps)) for each in batches]
    assert len(set(map(len, taken))) == 1
    return [batch for step in zip(*taken) for batch in step]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (4, 3), (3, 2), (2, 4)])
def test_another_number_of_ranks_goes_on_in_the_same_order(
    cuts: CutSet, before: int, after: int
) -> None:
    """Same batches with the same randomness, each once; only the last round may repeat some."""
    some = cuts.subset(first=1500)
    whole = _take(_batches(some, before))
    begun, others = _batches(some, before), _batches(some, after)
    head = _take(begun, 7)
    assert head == whole[: 7 * before]
    for each in others:
        each.set_epoch(0)
        each.redeal([one.state_dict() for one in begun])
    first = _take(others, 3)
    states = [one.state_dict() for one in others]
    resumed = _batches(some, after)  # the same number of ranks again: load, not redeal
    for each, state in zip(resumed, states):
        each.set_epoch(0)
        each.load_state_dict(state)
    rest = first + _take(resumed)
    left = whole[7 * before :]
    assert rest[: len(left)] == left
    assert len(rest) - len(left) < after
    assert set(rest) == set(left)


def test_a_redealt_epoch_can_be_dealt_back_and_the_next_is_as_ever(cuts: CutSet) -> None:
    some = cuts.subset(first=1500)
    whole = _take(_batches(some, 2))
    begun, [alone], again = _batches(some, 2), _batches(some, 1), _batches(some, 2)
    _take(begun, 5)
    alone.redeal([one.state_dict() for one in begun])
    assert _take([alone], 4) == whole[10:14]
    for each in again:
        each.redeal([alone.state_dict()])
    assert _take(again) == whole[14:]
    fresh = _batches(some, 2)
    for each in (*again, *fresh):
        each.set_epoch(1)
    assert _take(again) == _take(fresh)


def test_other_data_are_refused_by_a_redeal_too(cuts: CutSet) -> None:
    [alone], begun = _batches(cuts, 1), _batches(cuts, 2)
    states = [{**one.state_dict(), "fingerprint": "of others"} for one in begun]
    with pytest.raises(ValueError, match=r"must have the data and data options .*of others"):
        alone.redeal(states)
