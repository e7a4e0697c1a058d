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
    "OutputError",
    "check_new_folder",
    "file_hash",
    "named",
    "new_folder",
    "output_file",
    "output_folder",
    "require_paths",
    "write_atomically",
]

AnyPath = str | os.PathLike[str]
"""A path as callers have it: what reads or writes a file takes any."""


class OutputError(OSError):
    """Nothing can be written where an option says. An OSError, which argparse lets through."""


def output_file(path: AnyPath) -> Path:
    """The path of a file to write, as a type of options: checked before any work is done.

    Raises:
        OutputError: a folder is there, or no file can be made there.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path} must be a file to write, but is a folder: name a file in it")
    _check_folder(path.parent, path)
    return path


def output_folder(path: AnyPath) -> Path:
    """The path of a folder to write into, which need not be there, likewise.

    Raises:
        OutputError: a file is there or on the way, or the user may not write there.
    """
    path = Path(path)
    _check_folder(path, path)
    return path


def _check_folder(folder: Path, wanted: Path) -> None:
    """That `folder` is one that files can be written into, or can be made."""
    there = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
    if not there.is_dir():
        what = "a file" if there.exists() else "a link to nothing"
        raise OutputError(
            f"{wanted} cannot be written, because {there} must be a folder, but is {what}: "
            "name another place"
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(
            f"{wanted} cannot be written, because {there} may not be written to: name another "
            "place, or have its owner allow it (chmod)"
        )


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


@contextlib.contextmanager
def named(path: AnyPath) -> Iterator[None]:
    """Inside, an OSError that names no file, as that of a full disk, names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


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
        with named(path):
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
    """ValueError unless there is nothing at `path`, or an empty folder; errors as for
    `output_folder`.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"the folder must be new or empty, but {path} is there already")
    output_folder(path)


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
        with named(path):
            temporary.mkdir()
            yield temporary
        os.replace(temporary, path)  # over an empty one, too
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # still there only if something failed
