"""Running recognition on a screen: grey lines as the text grows, then the final one in their place.

    D02M0028-L_0001     1.61 s  水曜日は雨が降って居まし        (grey on a terminal)
    D02M0028-L_0001     1.75 s  = 水曜日は雨が降って[居→い]ました

Where a second pass has changed the text, the final line shows it: [before→after]. Of several
streams one is shown at a time, the one that began first; what the others say waits for its end.
Colours are for terminals, and left out if NO_COLOR is set.
"""

import os
import sys
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple, TextIO

__all__ = ["Screen", "marked"]

_GREY, _BOLD, _PLAIN = "\x1b[90m", "\x1b[1m", "\x1b[0m"


class _Line(NamedTuple):
    text: str
    is_final: bool


class Screen:
    """Lines of streams that go on at the same time, each stream's together.

    Args:
        file: where they go; standard output by default.
        is_coloured: None: if `file` is a terminal and NO_COLOR is not set.
    """

    def __init__(self, file: TextIO | None = None, is_coloured: bool | None = None) -> None:
        self._file = sys.stdout if file is None else file
        if is_coloured is None:
            is_coloured = self._file.isatty() and not os.environ.get("NO_COLOR")
        self._is_coloured = is_coloured
        self._held: dict[str, list[_Line]] = {}
        """Lines of each stream that has not ended, in the order in which they began; the first one
        is being shown and holds none."""
        self._over: set[str] = set()
        """Streams that have ended and wait for their turn."""

    def say(self, text: str) -> None:
        """A line that belongs to no stream, such as which weights are used."""
        print(text, file=self._file, flush=True)

    def partial(self, stream: str, seconds: float, text: str) -> None:
        """The text of a stream has changed."""
        self._add(stream, _Line(_line(stream, seconds, text), False))

    def final(self, stream: str, seconds: float, first: str, text: str, note: str = "") -> None:
        """A sentence of a stream is over: `first` was shown and `text` stays."""
        shown = "= " + marked(first, text) + (f"  [{note}]" if note else "")
        self._add(stream, _Line(_line(stream, seconds, shown), True))

    def end(self, stream: str) -> None:
        """A stream is over; one that began after it is shown now, with all that it has said."""
        self._held.setdefault(stream, [])
        self._over.add(stream)
        while self._held and next(iter(self._held)) in self._over:
            ended = next(iter(self._held))
            del self._held[ended]
            self._over.remove(ended)
            following = next(iter(self._held), None)
            if following is not None:
                for line in self._held[following]:
                    self._print(line)
                self._held[following] = []

    def _add(self, stream: str, line: _Line) -> None:
        held = self._held.setdefault(stream, [])
        if next(iter(self._held)) == stream:
            self._print(line)
        else:
            held.append(line)

    def _print(self, line: _Line) -> None:
        text = line.text
        if self._is_coloured:
            text = f"{_BOLD if line.is_final else _GREY}{text}{_PLAIN}"
        print(text, file=self._file, flush=True)


def marked(first: str, text: str) -> str:
    """`text`, with [before→after] where it differs from `first`."""
    return "".join(
        after if before == after else f"[{before}→{after}]"
        for before, after in _changes(first, text)
    )


def _changes(first: str, text: str) -> Iterator[tuple[str, str]]:
    """Stretches of equal text, and of changed text, by turns."""
    from dualasr_lib.metrics.alignment import align  # numpy, which --help does without

    for _, group in groupby(align(first, text), lambda pair: pair.ref == pair.hyp):
        pairs = list(group)
        yield "".join(p.ref or "" for p in pairs), "".join(p.hyp or "" for p in pairs)


def _line(stream: str, seconds: float, text: str) -> str:
    return f"{stream}  {seconds:7.2f} s  {text}" if stream else f"{seconds:9.2f} s  {text}"
