"""Cuts of Lhotse Shar: read shard by shard, in another order of shards each epoch.

A cut comes with its data, so that nothing is opened at random places. Which batches an epoch has is
still a function of (seed, epoch): a run goes on in the middle of a shard by reading up to where it
was. All ranks read all shards and keep their share of the batches, each utterance once.
"""

from collections.abc import Iterator
from pathlib import Path

from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.shar.readers.lazy import LazySharIterator

__all__ = ["Shards", "shar_folder"]


def shar_folder(data_dir: Path, split: str) -> Path:
    """Where the shards of a split are."""
    return data_dir / "shar" / split


class Shards:
    """The cuts of a folder of shards, as often as they are asked for.

    Attributes:
        epoch: decides the order of the shards.

    Args:
        seed: of that order; None: as they are numbered.

    Raises:
        ValueError: there is no such folder.
    """

    def __init__(self, folder: Path, seed: int | None) -> None:
        if not any(folder.glob("cuts.*.jsonl.gz")):
            raise ValueError(
                f"'{folder}' has no shards: python -m dualasr_lib.recipe.shar writes them, or "
                'train with data.storage = "files"'
            )
        self._folder, self._seed = folder, seed
        self.epoch = 0

    def cuts(self) -> CutSet:
        """A lazy set of them."""
        return CutSet(self)

    def __iter__(self) -> Iterator[Cut]:
        shuffled = self._seed is not None
        seed = 1000 * (self._seed or 0) + self.epoch
        yield from LazySharIterator(
            in_dir=self._folder, shuffle_shards=shuffled, stateful_shuffle=False, seed=seed
        )
