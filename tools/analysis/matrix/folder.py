"""The folder of a run, OUT/<cell>/seed-<n>: what train.py and the decoding programs write, and
`run.json`, which says what has been done, with which commands.

`run.json` is written after each step; a step that it does not have is done again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dualasr_lib.core.config import flatten
from dualasr_lib.core.files import file_hash, write_atomically
from dualasr_lib.core.program import what_is_wrong
from dualasr_lib.data.folder import DataFolder

if TYPE_CHECKING:
    from analysis.matrix.plan import Run

__all__ = [
    "Record",
    "data_fingerprint",
    "differences",
    "read_record",
    "record_file",
    "write_record",
]


@dataclass
class Record:
    """What `run.json` holds."""

    cell: str
    seed: int
    config: dict[str, Any]
    """The whole configuration, plain values."""
    data: dict[str, str]
    """Hashes of the tokens and of each split's manifest."""
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name of each finished step -> command, commit, device, and what it was asked for."""
    spent: dict[str, float] = field(default_factory=dict)
    """Name of each step -> seconds, those of attempts that were stopped included."""

    @staticmethod
    def of(run: "Run", data: Mapping[str, str]) -> "Record":
        """The record of a run of which nothing is done."""
        config = json.loads(json.dumps(run.values()))
        return Record(run.cell.config.name, run.seed, config, dict(data))


def record_file(out: Path, name: str) -> Path:
    """Of the run called `name`."""
    return out / name / "run.json"


def read_record(path: Path) -> Record | None:
    """The record in `path`; None if there is none.

    Raises:
        ValueError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({what_is_wrong(error)}); move the folder away"
        ) from None


def write_record(path: Path, record: Record) -> None:
    """Writes it whole or not at all."""
    text = json.dumps(vars(record), ensure_ascii=False, indent=1)
    write_atomically(path, f"{text}\n".encode())


def differences(found: Record, wanted: Record) -> list[str]:
    """In what a run differs from the one that is asked for. Of the data only what both name: a
    matrix may get further splits.
    """
    common = found.data.keys() & wanted.data.keys()
    old, new = (
        flatten({"data": {name: record.data[name] for name in common}, "config": record.config})
        for record in (found, wanted)
    )
    names = [name for name in (*old, *(new.keys() - old.keys())) if old.get(name) != new.get(name)]
    return [f"{name}: {old.get(name)!r}, now {new.get(name)!r}" for name in names]


def data_fingerprint(data_dir: Path, splits: tuple[str, ...]) -> dict[str, str]:
    """Hashes of the tokens and manifests that a run depends on.

    Raises:
        ValueError: one is missing.
    """
    folder = DataFolder.read(data_dir)
    files = {"tokens": data_dir / "lang" / "tokens.txt"}
    for use in ("train", "valid"):
        files[use] = data_dir / folder.used_for(use).cuts
    for split in splits:
        files[split] = data_dir / folder.split(split).cuts
    for path in files.values():
        if not path.is_file():
            raise ValueError(f"'{path}' is missing; prepare.sh makes it")
    return {name: file_hash(path) for name, path in files.items()}
