"""Batches that gave a loss or gradient that is not finite, kept in files to look into later.

`archive.read(path)` gives one back: step, epoch, rank, reason, and for each batch its loss, its
fields with all tensors, and the key for `seed_all` under which it was computed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from dualasr_lib.core import archive
from dualasr_lib.training.contract import Batch

__all__ = ["BadStep", "Suspect", "dump"]


class Suspect(NamedTuple):
    """A batch that a step failed on."""

    batch: Batch
    loss: float
    """nan where the step did not get so far."""
    key: tuple[int | str, ...]
    """What `seed_all` was given before it."""


class BadStep(NamedTuple):
    """Which step of which rank could not be used."""

    step: int
    """Steps done, with this one."""
    epoch: int
    """Epochs finished."""
    rank: int
    reason: str


def dump(bad: BadStep, suspects: Sequence[Suspect], directory: Path, keep: int) -> Path | None:
    """Writes the suspects of this rank, if there are any, to a file in `directory`.

    Args:
        keep: files of this rank to keep; older ones are deleted.

    Raises:
        OSError: the disk is full.
    """
    if not suspects or keep == 0:
        return None
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"step-{bad.step:08d}-rank-{bad.rank}.pt"
    batches = [
        {"loss": item.loss, "key": item.key, "fields": item.batch.to(torch.device("cpu"))._asdict()}
        for item in suspects
    ]
    archive.write({**bad._asdict(), "batches": batches}, path)
    for old in sorted(directory.glob(f"step-*-rank-{bad.rank}.pt"))[:-keep]:
        old.unlink()
    return path
