"""Checkpoints of a run: what one holds, how they are named, found and thinned out.

Names tell the order: `epoch-3.pt` is the end of the third epoch, `epoch-3-step-1200.pt` was saved
later, in mid-fourth. That a file is whole or absent, and checked when read, is `archive.py`'s work.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from dualasr_lib.core import archive
from dualasr_lib.core.archive import ArchiveError
from dualasr_lib.core.files import AnyPath

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "file_name",
    "find",
    "load",
    "newest",
    "prune",
    "save",
]

_NAME = re.compile(r"epoch-(\d+)(?:-step-(\d+))?\.pt")


class CheckpointError(ValueError):
    """A checkpoint could not be written, found or read; the message names the file."""


class Checkpoint(NamedTuple):
    """What a checkpoint file holds."""

    step: int
    """Optimiser steps done."""
    epoch: int
    """Epochs finished."""
    model: dict[str, Tensor]
    """The model's state dict."""
    average: dict[str, Tensor]
    """float64 mean of the weights over all snapshots since the start (empty before the first)."""
    average_count: int
    """Snapshots in `average`."""
    config: dict[str, Any]
    """The whole configuration of the run, as plain values."""
    fingerprints: dict[str, str]
    """Hashes of what the model cannot be used without, e.g. the tokenizer."""
    training: dict[str, Any]
    """What only a resumed training needs: optimiser, position in the data, counters."""


def file_name(epoch: int, step: int | None = None) -> str:
    """Name of the checkpoint at the end of epoch number `epoch`, or at `step` after it."""
    return f"epoch-{epoch}.pt" if step is None else f"epoch-{epoch}-step-{step}.pt"


def save(checkpoint: Checkpoint, path: AnyPath) -> None:
    """Writes `checkpoint` to `path` atomically.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written; older files are intact.
        ValueError: `checkpoint` holds something that is neither plain data nor a tensor.
    """
    path = Path(path)
    try:
        archive.write(checkpoint._asdict(), path)
    except OSError as error:
        kept = newest(path.parent)
        raise CheckpointError(
            f"cannot write checkpoint {path}: {error.strerror or error}; "
            f"the last good checkpoint is {kept.name if kept else 'none'}"
        ) from error


def load(path: AnyPath) -> Checkpoint:
    """Reads a checkpoint; its tensors are on the CPU.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind; the message names it and
            the newest older checkpoint in its folder that reads well.
    """
    path = Path(path)
    try:
        return _read(path)
    except CheckpointError as error:
        offer = _newest_good_before(path) if path.exists() else None
        hint = f"; {offer.name} is good: move {path.name} away to go on from there" if offer else ""
        raise CheckpointError(f"{error}{hint}") from None


def newest(directory: AnyPath) -> Path | None:
    """The latest checkpoint in `directory` by its name, or None."""
    directory = Path(directory)
    found = _list(directory)
    return found[-1] if found else None


def find(directory: AnyPath, epoch: int | None) -> Path:
    """The checkpoint of the end of `epoch`, or the newest one for None.

    Raises:
        CheckpointError: there is none; the message lists what there is.
    """
    directory = Path(directory)
    path = newest(directory) if epoch is None else directory / file_name(epoch)
    if path is None or not path.is_file():
        wanted = "any checkpoint" if epoch is None else file_name(epoch)
        raise CheckpointError(f"{wanted} is wanted, but {directory} has {_names(directory)}")
    return path


def prune(directory: AnyPath, keep_last: int, keep_epochs: int) -> None:
    """Deletes all but the newest `keep_last` mid-epoch and `keep_epochs` epoch checkpoints.

    0 epochs means: keep them all. What a killed save left behind goes too.
    """
    directory = Path(directory)
    ends = _ends(directory)
    between = [path for path in _list(directory) if path not in ends]
    surplus = between[: max(0, len(between) - keep_last)]
    surplus += ends[: max(0, len(ends) - keep_epochs)] if keep_epochs else []
    for path in [*surplus, *directory.glob("epoch-*.pt.tmp")]:
        path.unlink()


def _read(path: Path) -> Checkpoint:
    try:
        return Checkpoint(**archive.read(path))
    except ArchiveError as error:
        raise CheckpointError(f"checkpoint {error}") from error


def _newest_good_before(path: Path) -> Path | None:
    for candidate in reversed(_list(path.parent)):
        if _order(candidate) < _order(path):
            try:
                _read(candidate)
            except CheckpointError:
                continue
            return candidate
    return None


def _list(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    return sorted((p for p in directory.iterdir() if _NAME.fullmatch(p.name)), key=_order)


def _ends(directory: Path) -> list[Path]:
    return [path for path in _list(directory) if "-step-" not in path.name]


def _names(directory: Path) -> str:
    return ", ".join(item.name for item in _list(directory)) or "no checkpoints"


def _order(path: Path) -> tuple[int, int]:
    match = _NAME.fullmatch(path.name)
    return (int(match[1]), int(match[2] or -1)) if match else (-1, -1)
