"""A strict reader of CSJ's SDB files: every defect is named with its line, before lhotse sees the
file.

lhotse reads a broken SDB file with a bare traceback (a missing column, an undecodable byte) or
with silent loss (no final newline: the last unit is gone; a bracket that never closes: all units
after it are gone). This module finds those cases and says where they are. Left out: audio (the
recipe checks it), and turning rows into supervisions, which stays lhotse's work.

One row is one word: tab-separated columns, of which column 2 holds the talk, 3 `segment start-end
channel:...`, 5 the surface with tags, 10 the pronunciation with tags. Rows of one segment number
in a run are one unit.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from egs.csj.local.csj_text import TextError, clean_surface, parse_surface

__all__ = ["Defect", "SdbReport", "Span", "Unit", "check_sdb"]

_TALK, _TIME, _SURFACE, _PRON = 2, 3, 5, 10
_HALF_WIDTH = re.compile(r"[!-'*-:<-^`-~]")  # ASCII but for the signs of tags: ( ) ; , _
_TIME_FIELD = re.compile(r"(\d{4,}) (\d+\.\d+)-(\d+\.\d+) ([LR]):\S*")


class Defect(NamedTuple):
    """What is wrong, and where; `line` counts from 1, 0 means the file as a whole."""

    talk: str
    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{self.talk}: {place}: {self.reason}"


class Unit(NamedTuple):
    """One unit: where it stands, in the file and in the audio."""

    id: str
    """As lhotse calls it: talk (in dialogues with channel) and segment number."""
    lines: tuple[int, ...]
    start: float  # seconds
    end: float


class Span(NamedTuple):
    """One unit, or several that a tag ties together."""

    units: tuple[Unit, ...]
    text: str


class SdbReport(NamedTuple):
    """Result of `check_sdb`: `defects` make the talk unusable, `warnings` change its text.

    `last_end` is the end of the last unit in seconds.
    """

    defects: tuple[Defect, ...]
    warnings: tuple[Defect, ...]
    last_end: float
    spans: tuple[Span, ...]
    """All units that could be read, those without text too."""


class _Row(NamedTuple):
    line: int
    segment: str
    start: float
    end: float
    channel: str
    surface: str
    pron: str


class _Unit(NamedTuple):
    rows: tuple[_Row, ...]

    @property
    def first(self) -> _Row:
        return self.rows[0]

    @property
    def end(self) -> float:
        return self.rows[-1].end


class _Problem(NamedTuple):
    line: int
    reason: str


def check_sdb(path: Path, talk: str) -> SdbReport:
    """Reads the SDB file of `talk` (a dialogue, `D...`, has rows of both channels) and names its
    defects.
    """
    items = list(_read_rows(path.read_bytes(), talk))
    problems = [item for item in items if isinstance(item, _Problem)]
    rows = [item for item in items if isinstance(item, _Row)]
    notes: list[_Problem] = []
    spans: list[Span] = []
    for channel in ("L", "R") if talk.startswith("D") else ("",):
        units = _units(row for row in rows if not channel or row.channel == channel)
        if rows and not units:
            problems.append(_Problem(0, f"channel {channel} of the dialogue has no row"))
        problems += [*_order_problems(units), *_time_problems(units), *_bracket_problems(units)]
        notes += _overlaps(units)
        for tied in _spans(units):
            text = _span_text(tuple(row for unit in tied for row in unit.rows))
            problems += [*text.problems, *_tied_problems(tied)]
            notes += text.notes
            speaker = f"{talk}-{channel}" if channel else talk
            spans.append(Span(tuple(_plain(unit, speaker) for unit in tied), text.text))
    if not problems and not any(span.text for span in spans):
        problems.append(_Problem(0, "the talk is empty: no unit has any text"))

    def named(found: Iterable[_Problem]) -> tuple[Defect, ...]:
        return tuple(Defect(talk, str(path), item.line, item.reason) for item in sorted(found))

    last_end = max((row.end for row in rows), default=0.0)
    return SdbReport(named(problems), named(notes), last_end, tuple(spans))


def _plain(unit: _Unit, speaker: str) -> Unit:
    lines = tuple(row.line for row in unit.rows)
    return Unit(f"{speaker}_{unit.first.segment}", lines, unit.first.start, unit.end)


def _read_rows(data: bytes, talk: str) -> Iterator[_Row | _Problem]:
    if not data.strip():
        yield _Problem(0, "the file is empty")
        return
    if encoding := _other_encoding(data):
        yield _Problem(
            0, f"the file is in {encoding}, but must be in Shift_JIS (iconv -t SHIFT_JIS)"
        )
        return
    lines = data.split(b"\n")
    if lines[-1].strip():
        yield _Problem(
            len(lines), "no newline at the end of the file (the last unit would be lost)"
        )
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, start=1):
        try:
            text = line.removesuffix(b"\r").decode("shift_jis")
        except UnicodeDecodeError as error:
            yield _Problem(
                number, f"not Shift_JIS: {line[error.start : error.end]!r} at byte {error.start}"
            )
            continue
        yield _parse_row(number, text, talk)


def _other_encoding(data: bytes) -> str:
    """UTF-16 or UTF-8, if the file cannot be Shift_JIS but is that; else nothing."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    for encoding, name in (("shift_jis", ""), ("utf-8", "UTF-8")):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        return "UTF-8" if data.startswith(b"\xef\xbb\xbf") and "\t" in text else name
    return ""


def _parse_row(number: int, text: str, talk: str) -> _Row | _Problem:
    columns = text.split("\t")
    if not text.strip():
        return _Problem(number, "blank line")
    if "\r" in text:
        return _Problem(number, "carriage return inside the line")
    if len(columns) <= _SURFACE:
        return _Problem(
            number, f"needs more than {_SURFACE} tab-separated columns, has {len(columns)}"
        )
    if not columns[0].strip():
        return _Problem(number, "the first column is blank (lhotse would shift all columns)")
    if columns[_TALK] != talk:
        return _Problem(number, f"column {_TALK} must be the talk {talk}, is '{columns[_TALK]}'")
    time = _TIME_FIELD.fullmatch(columns[_TIME])
    if time is None:
        wanted = "'0004 00007.170-00008.700 L:-001-002'"
        return _Problem(number, f"column {_TIME} must look like {wanted}, is '{columns[_TIME]}'")
    pron = columns[_PRON] if len(columns) > _PRON else ""
    start, end = float(time[2]), float(time[3])
    return _Row(number, time[1], start, end, time[4], clean_surface(columns[_SURFACE]), pron)


def _units(rows: Iterable[_Row]) -> list[_Unit]:
    return [_Unit(tuple(run)) for _, run in groupby(rows, key=lambda row: row.segment)]


def _order_problems(units: list[_Unit]) -> Iterator[_Problem]:
    """Units of one channel: each number once, in time order, longer than nothing."""
    seen: dict[str, int] = {}
    previous = 0.0
    for unit in units:
        first = unit.first
        if first.segment in seen:
            line = seen[first.segment]
            yield _Problem(first.line, f"segment {first.segment} came before, in line {line}")
        if unit.end <= first.start:
            yield _Problem(
                first.line, f"segment ends at {unit.end} s, before its start {first.start} s"
            )
        if first.start < previous:
            yield _Problem(
                first.line, f"starts at {first.start} s, before the previous unit ({previous} s)"
            )
        seen.setdefault(first.segment, first.line)
        previous = first.start


def _time_problems(units: list[_Unit]) -> Iterator[_Problem]:
    """All rows of a unit must give its times; a unit must not stand there twice."""
    seen: dict[tuple[float, float, str], int] = {}
    for unit in units:
        first = unit.first
        for row in unit.rows:
            if (row.start, row.end) != (first.start, first.end):
                yield _Problem(
                    row.line,
                    f"segment {row.segment} is at {row.start}-{row.end} s here, but at"
                    f" {first.start}-{first.end} s in line {first.line}",
                )
        key = first.start, first.end, "".join(row.surface for row in unit.rows)
        if key in seen and key[2]:
            yield _Problem(first.line, f"the same unit as in line {seen[key]}: times and words")
        seen.setdefault(key, first.line)


def _overlaps(units: list[_Unit]) -> Iterator[_Problem]:
    """Units of one channel that begin before an earlier one ends."""
    last: _Unit | None = None  # of those before, the one that ends last
    for unit in units:
        if last is not None and unit.first.start < last.end:
            yield _Problem(
                unit.first.line,
                f"segment {unit.first.segment} ({unit.first.start}-{unit.end} s) overlaps that of"
                f" line {last.first.line} ({last.first.start}-{last.end} s)",
            )
        if last is None or unit.end > last.end:
            last = unit


def _bracket_problems(units: list[_Unit]) -> Iterator[_Problem]:
    """A tag may span words and units, but must close before the talk ends (surface and
    pronunciation).
    """
    for name in ("surface", "pron"):
        opened: list[int] = []
        for row in (row for unit in units for row in unit.rows):
            for char in row.surface if name == "surface" else row.pron:
                if char == "(":
                    opened.append(row.line)
                elif char == ")" and opened:
                    opened.pop()
                elif char == ")":
                    yield _Problem(row.line, f"closing bracket without an opening one ({name})")
        for line in opened:
            yield _Problem(line, f"bracket is never closed ({name}); all later units would be lost")


def _spans(units: list[_Unit]) -> Iterator[tuple[_Unit, ...]]:
    """One unit, or several that a tag ties together."""
    tied: tuple[_Unit, ...] = ()
    for unit in units:
        tied += (unit,)
        if _is_balanced("".join(row.surface for unit in tied for row in unit.rows)):
            yield tied
            tied = ()
    if tied:  # a bracket that is never closed, which `_bracket_problems` has named
        yield tied


def _is_balanced(text: str) -> bool:
    return text.count("(") <= text.count(")")


def _tied_problems(tied: tuple[_Unit, ...]) -> Iterator[_Problem]:
    """lhotse makes one unit of them, which ends where the last one does."""
    for unit in tied:
        if unit.end > tied[-1].end:
            yield _Problem(
                tied[-1].first.line,
                f"a tag ties this unit to that of line {unit.first.line}, which ends later"
                f" ({unit.end} s, not {tied[-1].end} s)",
            )


class _SpanText(NamedTuple):
    text: str
    problems: tuple[_Problem, ...]
    notes: tuple[_Problem, ...]


def _span_text(rows: tuple[_Row, ...]) -> _SpanText:
    line_of = [row.line for row in rows for _ in row.surface + " "]
    problems = [_Problem(row.line, "'+' in the surface") for row in rows if "+" in row.surface]
    notes = [
        _Problem(row.line, f"half-width characters are dropped from '{row.surface}'")
        for row in rows
        if "(" not in row.surface and _HALF_WIDTH.search(row.surface)
    ]
    notes += [
        _Problem(row.line, f"white space inside '{row.surface}' becomes a part of the text")
        for row in rows
        if any(char.isspace() for char in row.surface)
    ]
    text = ""
    try:
        text = parse_surface(" ".join(row.surface for row in rows)).text
    except TextError as error:
        if "bracket" not in str(error):  # `_bracket_problems` has named it
            problems.append(_Problem(line_of[error.position], str(error)))
    return _SpanText(text, tuple(problems), tuple(notes))
