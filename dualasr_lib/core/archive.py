"""Files of plain data and tensors: written whole or not at all, checked when read.

A file is written under a temporary name, forced to the disk and renamed, so a crash or a full disk
leaves an older file of that name intact. Each member carries a checksum (it is a zip archive),
which `read` verifies: torch itself reads flipped bits without a word.
"""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from dualasr_lib.core.files import AnyPath, named
from dualasr_lib.core.packing import Packed, pack, unpack
from dualasr_lib.core.program import what_is_wrong

__all__ = ["ArchiveError", "read", "write"]

_FORMAT = 1


class ArchiveError(ValueError):
    """A file could not be read; the message begins with its path."""


def write(tree: Any, path: AnyPath) -> None:
    """Writes nested plain data and tensors to `path`.

    Raises:
        OSError: the disk is full or the folder cannot be written; nothing has changed.
        ValueError: `tree` holds something that is neither plain data nor a tensor.
    """
    path = Path(path)
    packed = pack(tree)
    payload = {"format": _FORMAT, "plain": packed.plain, "tensors": packed.tensors}
    temporary = path.with_name(path.name + ".tmp")
    try:
        with named(path), open(temporary, "wb") as file:
            writer = _Writer(file)
            torch.save(payload, cast(BinaryIO, writer))
            writer.finish()
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)  # still there only if something failed


def read(path: AnyPath) -> Any:
    """What `write` was given, with its tensors on the CPU.

    Raises:
        ArchiveError: the file is missing, damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise ArchiveError(f"{path} does not exist")
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise ArchiveError(f"{path} is damaged ({what_is_wrong(error)})") from None
    if broken is not None:
        raise ArchiveError(f"{path} is damaged (wrong checksum of {broken})")
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not its own
        raise ArchiveError(f"{path} cannot be read: {error}") from error
    version = payload.get("format") if isinstance(payload, Mapping) else None
    if version != _FORMAT:
        raise ArchiveError(
            f"{path} must have format {_FORMAT}, but has {version}: not written by "
            f"this program, or by another version of it"
        )
    return unpack(Packed(payload["plain"], payload["tensors"]))


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


def _sync_folder(directory: Path) -> None:
    """Makes the rename itself survive a power failure."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
