"""CSJ's ids, folders and word files (SDB), as `lhotse prepare csj` reads them.

Formats and traps are described in README.md; columns that nothing reads are left empty.
"""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import NamedTuple

from open_corpus.words import Word

__all__ = ["SPLITS", "SdbRow", "fixed_talks", "is_dialogue", "sdb_bytes", "sdb_path", "wav_path"]

SPLITS = ("train", "valid", "eval1", "eval2", "eval3", "excluded")


class SdbRow(NamedTuple):
    """A word with its place: segments are numbered from 1 through the talk, words within them."""

    segment: int
    start: float
    """Of the segment, seconds."""
    end: float
    channel: str
    """L, or R in a dialogue."""
    position: int
    word: Word


def is_dialogue(talk: str) -> bool:
    """Whether the id is a dialogue's: two channels, L and R."""
    return talk.startswith("D")


def fixed_talks() -> dict[str, str]:
    """Split of each of the 75 talks that lhotse's recipe names (its source is read)."""
    lists = _recipe_lists()
    talks = dict.fromkeys(lists["_A01M0056"], "excluded") | dict.fromkeys(lists["_VALID"], "valid")
    for index, names in enumerate(lists["_EVAL"], start=1):
        talks |= dict.fromkeys(names, f"eval{index}")
    return talks


def sdb_path(volume: str, talk: str) -> Path:
    """Relative path of a talk's word file; `volume` is core or noncore."""
    return Path("MORPH") / "SDB" / volume / f"{talk}.sdb"


def wav_path(volume: str, talk: str, channel: str) -> Path:
    """Relative path of a channel's audio."""
    name = f"{talk}-{channel}" if is_dialogue(talk) else talk
    return Path("WAV") / volume / f"{name}.wav"


def sdb_bytes(talk: str, rows: list[SdbRow]) -> bytes:
    """The word file: Shift_JIS, a row per word in time order, exactly one newline at the end."""
    lines = [_line(talk, number, row) for number, row in enumerate(rows, start=1)]
    return ("\n".join(lines) + "\n").encode("shift_jis")


def _line(talk: str, number: int, row: SdbRow) -> str:
    word = row.word
    time = (
        f"{row.segment:04d} {row.start:09.3f}-{row.end:09.3f} {row.channel}:-001-{row.position:03d}"
    )
    spoken = word.pron.replace("<H>", "ー")
    fields = [f"{number:06d}", "", talk, time, word.text, word.surface, word.reading, word.lemma]
    fields += [
        spoken,
        word.text,
        word.pron,
        word.pos,
        word.conjugation,
        word.form,
        word.info,
        "",
        "",
    ]
    return "\t".join(fields)


def _recipe_lists() -> dict[str, list]:  # type: ignore[type-arg]
    spec = importlib.util.find_spec("lhotse")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "lhotse, whose CSJ recipe names the talks, is missing", name="lhotse"
        )
    recipe = Path(spec.origin).parent / "recipes" / "csj.py"
    found = {}
    for statement in ast.parse(recipe.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name = statement.targets[0].id
            if name in ("_A01M0056", "_VALID", "_EVAL"):
                found[name] = ast.literal_eval(statement.value)
    if len(found) != 3:
        raise RuntimeError(
            f"{recipe} must define _A01M0056, _VALID and _EVAL, but has {sorted(found)}"
        )
    return found
