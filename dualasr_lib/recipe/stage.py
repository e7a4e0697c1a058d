"""A stage of prepare.sh: built in a temporary folder, moved into place, then marked as done.

A stage may be killed at any moment: without its marker it is built again from the start (stage 4
keeps what it has finished), and everything it writes is a function of its input, so the result has
the same bytes. Markers hold the parameters; a marker made with other parameters stops the program.
A stage that is made again removes what its former run wrote and this one does not:
`DATA/written/stage-<n>.json` lists the files of each stage.
"""

import fcntl
import gzip
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from dualasr_lib.core.files import file_hash, named, write_atomically
from dualasr_lib.core.program import what_is_wrong
from dualasr_lib.core.progress import watched
from dualasr_lib.core.text import read_lines

__all__ = [
    "Folders",
    "LeftOut",
    "PrepareError",
    "Stage",
    "count_jsonl",
    "lock",
    "progress",
    "read_jsonl",
    "remember_left_out",
    "write_jsonl",
]

T = TypeVar("T")

_LEFT_OUT = "left_out.json"
_FORMAT = 2
"""Of markers; 1 had none, and no lists of files."""


class PrepareError(ValueError):
    """Something the user can put right; shown without a traceback."""


class Folders(NamedTuple):
    """Where a stage builds: `out` is laid out like DATA, `scratch` is thrown away in the end."""

    out: Path
    scratch: Path


class LeftOut(NamedTuple):
    """What a stage left out because of its files: it may be repaired one day."""

    id: str
    files: tuple[Path, ...]


def remember_left_out(folders: Folders, items: Iterable[LeftOut], source: Path | None) -> None:
    """Puts into the stage's marker what it left out, and what the files looked like.

    Args:
        source: the folder of the corpus, which may move.
    """
    found = [
        {"id": item.id, "files": {_name(file, source): _stamp(file) for file in item.files}}
        for item in items
    ]
    _write_json(folders.out.parent / _LEFT_OUT, found)


def _name(file: Path, source: Path | None) -> str:
    inside = source is not None and file.is_relative_to(source)
    return str(file.relative_to(source)) if inside and source is not None else str(file)


def _stamp(file: Path) -> str | None:
    """Of the content; None where there is no such file."""
    return file_hash(file) if file.is_file() else None


class Stage:
    """One stage with its parameters, which include (as a hash) those of the stages it builds on."""

    def __init__(
        self, data_dir: Path, number: int, parameters: Mapping[str, Any], needs: "list[Stage]"
    ) -> None:
        self.number = number
        self._data_dir = data_dir
        self._needs = needs
        self._parameters = dict(parameters)
        self._parameters |= {f"stage {stage.number}": stage.hash for stage in needs}
        text = json.dumps(self._parameters, sort_keys=True, ensure_ascii=False)
        self.hash: str = hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def _marker(self) -> Path:
        return self._data_dir / "done" / f"stage-{self.number}"

    @property
    def _list(self) -> Path:
        return self._data_dir / "written" / f"stage-{self.number}.json"

    def fits(self) -> bool:
        """Whether the stage has been done with these parameters."""
        try:
            return self.is_done()
        except PrepareError:
            return False

    def is_done(self) -> bool:
        """Whether the marker is there.

        Raises:
            PrepareError: it is there, but was made with other parameters, or by another version.
        """
        if not self._marker.is_file():
            return False
        try:
            done = json.loads(self._marker.read_text(encoding="utf-8"))
            found, old = done.get("format", 1), done["parameters"]
        except (ValueError, KeyError, AttributeError) as error:
            raise PrepareError(
                f"'{self._marker}' is damaged ({what_is_wrong(error)}); remove it and all later "
                "markers"
            ) from None
        if found != _FORMAT:
            raise PrepareError(
                f"'{self._data_dir}' was prepared by another version of prepare.sh, which this one"
                " cannot go on with: use another --data-dir, or remove the folder"
            )
        if done["hash"] == self.hash:
            return True
        new = self._parameters
        changes = [
            f"{key} was {old.get(key)!r}, is {new.get(key)!r}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]
        raise PrepareError(
            f"stage {self.number} was done with other parameters: {'; '.join(changes)}. To do it"
            f" again remove '{self._marker}' and all later markers, or use another --data-dir"
        )

    def about_left_out(self, source: Path | None) -> list[str]:
        """What a stage that is done left out, and what of that has changed since: a line each."""
        done = json.loads(self._marker.read_text(encoding="utf-8"))
        items = done.get("left_out", [])
        if not items:
            return []
        lines = [f"stage {self.number}: done without {_listed(items)}"]
        if changed := [item for item in items if _has_changed(item["files"], source)]:
            lines.append(
                f"stage {self.number}: {_listed(changed)}: changed since, but still left out; to"
                f" take in what was repaired remove '{self._marker}' and all later markers, and"
                " run the same command again"
            )
        return lines

    def check_inputs(self) -> None:
        """Raises PrepareError if a stage that this one builds on has not been done."""
        for stage in self._needs:
            if not stage.is_done():
                raise PrepareError(
                    f"stage {self.number} needs stage {stage.number}, which has not been done in"
                    f" '{self._data_dir}'; start with --stage {stage.number}"
                )

    @contextmanager
    def building(self, keep_partial: bool = False) -> Iterator[Folders]:
        """Temporary folders; the files in `out` are moved to DATA when the body ends well.

        Args:
            keep_partial: start with what a killed run (of the same parameters) left there.
        """
        if self._top.exists() and not keep_partial:
            shutil.rmtree(self._top)
        folders = self.partial()
        yield folders
        self._move(folders.out)
        marker = {
            "format": _FORMAT,
            "stage": self.number,
            "hash": self.hash,
            "parameters": self._parameters,
        }
        if (left_out := self._top / _LEFT_OUT).is_file():
            marker |= {"left_out": json.loads(left_out.read_text(encoding="utf-8"))}
        _write_json(self._marker, marker)
        for folder in self._top.parent.glob(f"stage-{self.number}-*"):
            shutil.rmtree(folder)

    def partial(self) -> Folders:
        """The temporary folders, with what was left there."""
        folders = Folders(out=self._top / "out", scratch=self._top / "scratch")
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        return folders

    @property
    def _top(self) -> Path:
        return self._data_dir / "tmp" / f"stage-{self.number}-{self.hash}"

    def _move(self, built: Path) -> None:
        """Moves the files into DATA, and removes what a former run of the stage left there.

        Whenever it is killed, the list names all files that this stage has ever put there and not
        removed.
        """
        files = sorted(path for path in built.rglob("*") if path.is_file())
        names = [str(file.relative_to(built)) for file in files]
        former = json.loads(self._list.read_text()) if self._list.is_file() else []
        _write_json(self._list, sorted({*former, *names}))
        for file, name in zip(files, names, strict=True):
            target = self._data_dir / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
        for name in sorted(set(former) - set(names)):
            (self._data_dir / name).unlink(missing_ok=True)
        _write_json(self._list, names)


def _listed(items: list[dict[str, Any]]) -> str:
    names = ", ".join(item["id"] for item in items[:5])
    return f"{len(items)} ({names}{', ...' if len(items) > 5 else ''})"


def _has_changed(files: dict[str, str | None], source: Path | None) -> bool:
    # an absolute name stays what it is: `source / "/a"` is "/a"
    return any(_stamp((source or Path()) / name) != stamp for name, stamp in files.items())


def _write_json(path: Path, content: Any) -> None:
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False).encode())


@contextmanager
def lock(data_dir: Path, patience: float = 3.0, shared: bool = False) -> Iterator[None]:
    """One program at a time in a data folder; the system frees the lock of a killed one.

    Args:
        shared: others that say so, too, may be there.
        patience: seconds to wait for a program that is just ending.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience
    with open(data_dir / ".lock", "w") as file:
        while True:
            try:
                kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
                fcntl.flock(file, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    message = f"another prepare.sh is at work in '{data_dir}'"
                    raise PrepareError(message) from None
                time.sleep(0.1)
        yield


def write_jsonl(path: Path, items: Iterable[Mapping[str, Any]]) -> int:
    """Writes JSON lines, gzipped without time or name in the header (same items, same bytes)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    count = 0
    try:
        with (
            named(path),
            open(temporary, "wb") as raw,
            gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as file,
        ):
            for item in items:
                file.write(json.dumps(item, ensure_ascii=False).encode() + b"\n")
                count += 1
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # still there only if something failed
    return count


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The items of a file that `write_jsonl` (or lhotse) wrote.

    Raises:
        PrepareError: it was cut short or damaged.
    """
    number = 0
    try:
        for line in read_lines(path):
            number += 1
            yield json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, number, error) from error


def count_jsonl(path: Path) -> int:
    """How many items a file of JSON lines has."""
    number = 0
    try:
        for _ in read_lines(path):
            number += 1
    except ValueError as error:
        raise _damaged(path, number, error) from error
    return number


def _damaged(path: Path, number: int, error: Exception) -> PrepareError:
    return PrepareError(
        f"{path}:{number}: cut short or damaged ({error}); remove the marker in DATA/done of the"
        " stage that writes it, and all later ones, and run prepare.sh again"
    )


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Passes items on and shows how many, and the time left, as all programs do."""
    return watched(items, what, "done", total)
