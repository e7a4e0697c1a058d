"""What was read of somebody's own data: recordings, units, and defects, each with a name.

A defect is found while reading and leaves its unit out; egs/own stops for it unless --allow-bad
covers it, or --dry-run only wants to know.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lhotse import Recording

from dualasr_lib.core.files import write_atomically
from dualasr_lib.core.program import told_by
from dualasr_lib.core.text import read_lines
from dualasr_lib.recipe.corpus import Item
from dualasr_lib.recipe.options import Options
from dualasr_lib.recipe.stage import Folders, LeftOut, PrepareError, remember_left_out

__all__ = ["DEFECTS_FILE", "Defect", "Source", "open_recording", "read_table", "settle", "unit"]

DEFECTS_FILE = "defects.json"
"""In `manifests/`: kind, id and detail of each."""


class Defect(NamedTuple):
    """Why something cannot be used."""

    kind: str
    """A name in `recipe/defects.py::KINDS`."""
    id: str
    """Of the unit, recording or line."""
    detail: str
    file: Path | None = None
    """What to repair."""


class Source(NamedTuple):
    """Everything that was read."""

    recordings: Mapping[str, dict[str, Any]]
    """Plain values of lhotse's recordings, by id."""
    units: list[Item]
    """With audio and text, in the order they were read."""
    defects: list[Defect]


def unit(id_: str, recording_id: str, span: tuple[float, float], text: str, speaker: str) -> Item:
    """Plain values of a supervision from `span[0]` to `span[1]` seconds."""
    start, end = span
    return {
        "id": id_,
        "recording_id": recording_id,
        "start": round(start, 8),
        "duration": round(end - start, 8),
        "channel": 0,
        "text": text,
        "speaker": speaker,
    }


def open_recording(path: Path, id_: str) -> dict[str, Any] | Defect:
    """The recording of a file, or what is wrong with it."""
    if not path.is_file():
        return Defect("missing-audio", id_, f"'{path}' is not there", path)
    try:
        found = Recording.from_file(path, recording_id=id_)
    except Exception as error:  # of whatever reads audio
        return Defect("unreadable-audio", id_, told_by(str(error)), path)
    if not found.num_samples:
        return Defect("unreadable-audio", id_, "it has no samples", path)
    plain: dict[str, Any] = found.to_dict()
    return plain


def read_table(
    path: Path, least: int, most: int, defects: list[Defect], tabs: bool = False
) -> dict[str, list[str]]:
    """Lines `key value ...` by key, split at white space into at most `most` columns; with `tabs`,
    a line that has some is split at all of these.

    Lines with less than `least` columns, that are no UTF-8, or of a key that was there before
    become defects.

    Raises:
        PrepareError: there is no such file.
    """
    table: dict[str, list[str]] = {}
    if not path.is_file():
        raise PrepareError(f"'{path}' is missing")
    for number, raw in enumerate(read_lines(path), start=1):
        where = f"{path.name}:{number}"
        try:
            line = raw.decode("utf-8").strip()
        except UnicodeDecodeError:
            defects.append(Defect("bad-line", where, "no UTF-8", path))
            continue
        parted = line.split("\t") if tabs and "\t" in line else line.split(None, most - 1)
        columns = [part.strip() for part in parted]
        if not line:
            continue
        if len(columns) < least:
            defects.append(Defect("bad-line", where, f"'{line}' has no {least} columns", path))
        elif columns[0] in table:
            defects.append(Defect("duplicate-id", columns[0], f"again in {where}", path))
        else:
            table[columns[0]] = columns
    return table


def settle(source: Source, options: Options, folders: Folders) -> None:
    """Names all defects, writes `manifests/check.json`, and stops if --allow-bad does not cover
    them.
    """
    groups: dict[str, list[str]] = {}
    for defect in source.defects:
        groups.setdefault(defect.kind, []).append(defect.id)
        if not options.dry_run:
            print(f"bad {defect.id}: {defect.kind}: {defect.detail}", file=sys.stderr)
    check = {"units": len(source.units), "units_left_out": groups}
    details = [(defect.kind, defect.id, defect.detail) for defect in source.defects]
    for name, content in (("check.json", check), (DEFECTS_FILE, details)):
        text = json.dumps(content, indent=1, ensure_ascii=False)
        write_atomically(folders.out / "manifests" / name, text.encode())
    if len(source.defects) > options.allow_bad:
        raise PrepareError(
            f"{len(source.defects)} defects (above); repair them, or leave them out with"
            f" --allow-bad {len(source.defects)}; --dry-run makes a report of all kinds"
        )
    if not source.units:
        raise PrepareError("no utterance has both audio and text")
    remember_left_out(folders, _repairable(source.defects), options.source)


def _repairable(defects: Iterable[Defect]) -> list[LeftOut]:
    return [LeftOut(d.id, () if d.file is None else (d.file,)) for d in defects]
