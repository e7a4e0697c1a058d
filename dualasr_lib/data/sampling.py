"""Batches of a training epoch, resumable at any batch: lhotse's sampler, a data loader, a position.

The order of an epoch is a function of (seed, epoch), augmentation of (seed, epoch, batch index),
so the state to save is a position. It counts batches in the order of the number of ranks that the
epoch began with; another number of ranks shares out the rest of that order. Left out: what a batch
contains (`data/datamodule.py`).
"""

import math
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

import torch
from lhotse import CutSet
from lhotse.dataset import DynamicBucketingSampler
from torch.utils.data import DataLoader, Dataset, Sampler

from dualasr_lib.data.batch import Batch
from dualasr_lib.data.shards import Shards

__all__ = ["BatchKey", "Dealt", "TrainBatches", "balanced_sampler"]


def balanced_sampler(
    cuts: CutSet,
    *,
    max_duration: float,
    num_buckets: int,
    buffer_size: int,
    seed: int,
    rank: int | None = None,
    world_size: int | None = None,
) -> DynamicBucketingSampler:
    """Shuffled batches of similar durations, `max_duration` seconds in all, balanced over ranks.

    At each step all ranks draw from one bucket, so that none waits for one with long utterances,
    and each has as many steps. Only the last few steps of an epoch, where buckets run empty, are
    uneven; the last of all shares out what is left, some of it twice (one utterance a rank at
    least). Every rank computes the batches of all: that costs little, and nothing is sent.

    Args:
        rank, world_size: default to torchrun's.
    """
    # lhotse wants two buckets at least; with this border the second one stays empty
    buckets: dict[str, Any] = {"num_buckets": num_buckets}
    if num_buckets == 1:
        buckets = {"num_buckets": None, "duration_bins": [math.inf]}
    return DynamicBucketingSampler(
        cuts,
        max_duration=max_duration,
        **buckets,
        buffer_size=buffer_size,
        shuffle=True,
        seed=seed,
        rank=rank,
        world_size=world_size,
        sync_buckets=True,
    )


class BatchKey(NamedTuple):
    """What a worker needs to make one batch: the cuts, and where they stand (for randomness)."""

    seed: int
    epoch: int
    position: int  # in the epoch, counted over all ranks
    cuts: CutSet

    @property
    def randomness(self) -> tuple[int, int, int]:
        return self.seed, self.epoch, self.position


class Dealt(NamedTuple):
    """How some number of ranks would share out the epochs."""

    samplers: Sequence[DynamicBucketingSampler]
    """One for each rank."""
    fingerprint: str
    """Of data, options and the number of ranks."""


class TrainBatches:
    """Iterates over one epoch, or over the rest of it after `load_state_dict`."""

    def __init__(
        self,
        sampler: DynamicBucketingSampler,
        make_batch: Callable[[BatchKey], Batch],
        num_workers: int,
        fingerprint: str,
        deal: Callable[[int], Dealt],
        shards: Shards | None = None,
    ) -> None:
        """
        Args:
            deal: (number of ranks) lets a run go on that another number of ranks began.
            shards: where the cuts come from, if they come in another order each epoch.
        """
        self._shards = shards
        self._sampler, self._deal = sampler, deal
        self._size = sampler.world_size
        self._source, self._start = self._size, 0  # whose order it is, and where ours began in it
        self._dataset = _Dataset(make_batch)
        self._num_workers = num_workers
        self._fingerprint = fingerprint
        self._epoch, self._position, self._finished = 0, 0, False

    def set_epoch(self, epoch: int) -> None:
        """Epoch (0-based) of the next pass; another epoch starts at its first batch."""
        if epoch != self._epoch:
            self._epoch, self._position, self._finished = epoch, 0, False
            self._source, self._start = self._size, 0

    def __iter__(self) -> Iterator[Batch]:
        if self._finished:
            self._position, self._finished = 0, False
            self._source, self._start = self._size, 0
        loader: DataLoader[Batch | _Failed] = DataLoader(
            self._dataset,
            sampler=self.keys(),
            batch_size=None,
            collate_fn=_unchanged,
            worker_init_fn=_leave_signals_to_the_parent,
            num_workers=self._num_workers,
            generator=torch.Generator(),  # or the loader would draw from the global one
        )
        for batch in loader:
            if isinstance(batch, _Failed):
                raise batch.error
            self._position += 1
            yield batch
        self._finished = True

    def keys(self) -> Sampler[BatchKey]:
        """What the next pass makes its batches of; nothing is loaded (but from shards)."""
        if self._shards is not None:
            self._shards.epoch = self._epoch
        if self._source == self._size and not self._start:
            return _Keys(self._sampler, self._epoch, self._position)
        samplers = self._deal(self._source).samplers
        start = self._start + self._position * self._size
        return _SharedOut(samplers, self._epoch, start, self._sampler.rank, self._size)

    def state_dict(self) -> dict[str, Any]:
        """The position: batches yielded so far (not those workers have prepared)."""
        return {
            "epoch": self._epoch,
            "position": self._position,
            "fingerprint": self._fingerprint_of(self._source),
            "ranks": self._size,
            "source": self._source,
            "start": self._start,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues after the batches that had been yielded when `state` was taken.

        Raises:
            ValueError: the state belongs to other data or other batching options.
        """
        source = state.get("source", self._size)
        self._check(state, source)
        self._epoch, self._position = state["epoch"], state["position"]
        self._source, self._start = source, state.get("start", 0)
        self._finished = False

    def redeal(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Continues after what all ranks of a run with another number of ranks had yielded: their
        next batches come in the same order, each once (the last round of the epoch is filled up).

        Args:
            states: of each of those ranks.

        Raises:
            ValueError: as `load_state_dict`.
        """
        state, ranks = states[0], len(states)
        source = state.get("source", ranks)
        self._check(state, source)
        done = min(each["position"] for each in states)  # one may have been ahead of the others
        self._epoch, self._position, self._finished = state["epoch"], 0, False
        self._source, self._start = source, state.get("start", 0) + done * ranks

    def _fingerprint_of(self, ranks: int) -> str:
        return self._fingerprint if ranks == self._size else self._deal(ranks).fingerprint

    def _check(self, state: Mapping[str, Any], ranks: int) -> None:
        own = self._fingerprint_of(ranks)
        if state["fingerprint"] != own:
            raise ValueError(
                "a run that goes on in mid-epoch must have the data and data options it was saved "
                f"with ({state['fingerprint']}), but has others ({own}): keep them "
                "until the end of the epoch, or remove the "
                f"newest checkpoints epoch-{state['epoch']}-step-*.pt, so that the run goes on "
                "from the end of an epoch"
            )


class _Keys(Sampler[BatchKey]):
    """The sampler's batches from `start` on, each with its key."""

    def __init__(self, sampler: DynamicBucketingSampler, epoch: int, start: int) -> None:
        self._sampler, self._epoch, self._start = sampler, epoch, start

    def __iter__(self) -> Iterator[BatchKey]:
        sampler = self._sampler
        sampler.set_epoch(self._epoch)
        for i, cuts in enumerate(islice(sampler, self._start, None), start=self._start):
            position = i * sampler.world_size + sampler.rank
            yield BatchKey(sampler.seed, self._epoch, position, cuts)


class _SharedOut(Sampler[BatchKey]):
    """The batches of several samplers in the order of their steps, from number `start` of them
    all; `size` ranks take one each in turn, and this is `rank`.

    The last round of the epoch repeats its own batches until each rank has one.
    """

    def __init__(
        self,
        samplers: Sequence[DynamicBucketingSampler],
        epoch: int,
        start: int,
        rank: int,
        size: int,
    ) -> None:
        self._samplers, self._epoch, self._start = samplers, epoch, start
        self._rank, self._size = rank, size

    def __iter__(self) -> Iterator[BatchKey]:
        for sampler in self._samplers:
            sampler.set_epoch(self._epoch)
        seed = self._samplers[0].seed
        steps = zip(*self._samplers)
        rest = islice(enumerate(chain.from_iterable(steps)), self._start, None)
        while batches := list(islice(rest, self._size)):
            number, cuts = batches[self._rank % len(batches)]
            yield BatchKey(seed, self._epoch, number, cuts)


def _leave_signals_to_the_parent(_: int) -> None:
    """A signal sent to the whole process group must not end a worker before the run has saved."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _unchanged(batch: Any) -> Any:
    return batch


class _Failed(NamedTuple):
    """What a worker says instead of a batch; torch would put its whole traceback into a message."""

    error: Exception


class _Dataset(Dataset["Batch | _Failed"]):
    def __init__(self, make_batch: Callable[[BatchKey], Batch]) -> None:
        self._make_batch = make_batch

    def __getitem__(self, key: BatchKey) -> "Batch | _Failed":
        try:
            return self._make_batch(key)
        except (ValueError, OSError) as error:
            return _Failed(error)
