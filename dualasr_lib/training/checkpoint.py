"""Checkpoints: written whole or not at all, checked when read, plain data and tensors only.

Names tell the order: `epoch-3.pt` is the end of the third epoch, `epoch-3-step-1200.pt` was saved
later, in mid-fourth. A file is written under a temporary name, forced to the disk and renamed, so
a crash or a full disk leaves the last one intact. Each member of the file carries a checksum (it is
a zip archive), which `load` verifies: torch itself reads flipped bits without a word.
"""

import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import torch
from torch import Tensor

from dualasr_lib.training.packing import Packed, pack, unpack

__all__ = ["Checkpoint", "CheckpointError", "file_name", "find", "load", "newest", "prune", "save"]

_FORMAT = 1
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


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Writes `checkpoint` to `path` atomically.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written; older files are intact.
        ValueError: `checkpoint` holds something that is neither plain data nor a tensor.
    """
    packed = pack(checkpoint._asdict())
    payload = {"format": _FORMAT, "plain": packed.plain, "tensors": packed.tensors}
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            writer = _Writer(file)
            torch.save(payload, cast(BinaryIO, writer))
            writer.finish()
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        kept = newest(path.parent)
        raise CheckpointError(
            f"cannot write checkpoint {path}: {error.strerror or error}; "
            f"the last good checkpoint is {kept.name if kept else 'none'}"
        ) from error


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint; its tensors are on the CPU.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind; the message names it and
            the newest older checkpoint in its folder that reads well.
    """
    try:
        return _read(path)
    except CheckpointError as error:
        offer = _newest_good_before(path)
        hint = f"; {offer.name} is good: move {path.name} away to go on from there" if offer else ""
        raise CheckpointError(f"{error}{hint}") from None


def newest(directory: Path) -> Path | None:
    """The latest checkpoint in `directory` by its name, or None."""
    found = _list(directory)
    return found[-1] if found else None


def find(directory: Path, epoch: int | None) -> Path:
    """The checkpoint of the end of `epoch`, or the newest one for None.

    Raises:
        CheckpointError: there is none; the message lists what there is.
    """
    path = newest(directory) if epoch is None else directory / file_name(epoch)
    if path is None or not path.is_file():
        there = ", ".join(item.name for item in _list(directory)) or "no checkpoints"
        wanted = "any checkpoint" if epoch is None else file_name(epoch)
        raise CheckpointError(f"{wanted} is wanted, but {directory} has {there}")
    return path


def prune(directory: Path, keep_last: int, keep_epochs: int) -> None:
    """Deletes all but the newest `keep_last` mid-epoch and `keep_epochs` epoch checkpoints.

    0 epochs means: keep them all.
    """
    found = _list(directory)
    between = [path for path in found if "-step-" in path.name]
    ends = [path for path in found if "-step-" not in path.name]
    surplus = between[: max(0, len(between) - keep_last)]
    surplus += ends[: max(0, len(ends) - keep_epochs)] if keep_epochs else []
    for path in surplus:
        path.unlink()


class _Writer:
    """A file for torch.save that remembers an OSError instead of raising it into C++.

    torch 1.13.1 ends the whole process when `write` raises (full disk), so the error waits here.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        if self._error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self._error = error
        return len(data)

    def flush(self) -> None:
        """Does nothing: `finish` flushes."""

    def finish(self) -> None:
        """Forces everything to the disk, or raises the error that a write met."""
        if self._error is not None:
            raise self._error
        self._file.flush()
        os.fsync(self._file.fileno())


def _read(path: Path) -> Checkpoint:
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist")
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged ({error})") from None
    if broken is not None:
        raise CheckpointError(f"checkpoint {path} is damaged (wrong checksum of {broken})")
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not its own
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error
    return _from_payload(payload, path)


def _from_payload(payload: Any, path: Path) -> Checkpoint:
    version = payload.get("format") if isinstance(payload, Mapping) else None
    if version != _FORMAT:
        raise CheckpointError(
            f"checkpoint {path} must have format {_FORMAT}, but has {version}: not written by "
            f"this program, or by another version of it"
        )
    return Checkpoint(**unpack(Packed(payload["plain"], payload["tensors"])))


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


def _order(path: Path) -> tuple[int, int]:
    match = _NAME.fullmatch(path.name)
    return (int(match[1]), int(match[2] or -1)) if match else (-1, -1)


def _sync_folder(directory: Path) -> None:
    """Makes the rename itself survive a power failure."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
