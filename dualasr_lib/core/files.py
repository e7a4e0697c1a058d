"""Files that appear whole or not at all; and what tells one file from another."""

import contextlib
import glob
import hashlib
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "AnyPath",
    "file_hash",
    "require_paths",
    "check_new_folder",
    "new_folder",
    "write_atomically",
]

AnyPath = str | os.PathLike[str]
"""A path as callers have it: what reads or writes a file takes any."""


def require_paths(**values: object) -> None:
    """For options that are kept as they are given; None is none.

    Raises:
        ValueError: one is no `Path`.
    """
    for name, value in values.items():
        if value is not None and not isinstance(value, Path):
            raise ValueError(f"`{name}` must be a pathlib.Path, but is {value!r}")


def file_hash(path: AnyPath) -> str:
    """The first 12 hexadecimal digits of the sha256 of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:12]


def write_atomically(path: AnyPath, data: bytes) -> None:
    """Writes a file under a temporary name beside `path`, then renames it; makes the folder.

    Processes that write the same file do not disturb each other: the last one wins. What a killed
    process of this machine left behind is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    ours = f".{path.name}.{platform.node()}."
    for left in path.parent.glob(f"{glob.escape(ours)}*.tmp"):
        if not _is_running(left.name.removeprefix(ours).removesuffix(".tmp")):
            left.unlink(missing_ok=True)
    temporary = path.with_name(f"{ours}{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # still there only if something failed


def _is_running(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (ValueError, PermissionError):  # not ours to judge
        return True
    return True


def check_new_folder(path: Path) -> None:
    """ValueError unless there is nothing at `path`, or an empty folder."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"the folder must be new or empty, but {path} is there already")


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to write into; it gets the name `path` at the end, or is removed if that fails.

    Raises:
        ValueError: as `check_new_folder`.
        OSError: it cannot be made.
    """
    check_new_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.tmp")
    try:
        temporary.mkdir()
        yield temporary
        os.replace(temporary, path)  # over an empty one, too
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # still there only if something failed
