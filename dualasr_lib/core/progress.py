"""Progress of anything that takes time: a bar on a terminal, elsewhere a line on stderr every ten
seconds, with speed and time left.

Time left follows the last calls, not the mean since the start. A stall (a validation, a tuning run)
does not count, unless it comes again and again; things that are done in bursts (by workers, by
streams in parallel) do.
"""

import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import timedelta
from types import TracebackType
from typing import Any, TextIO, TypeVar

__all__ = ["Progress", "watched"]

_SECONDS_BETWEEN_LINES = 10.0
_WINDOW = 50  # calls whose speed counts
_STALL = 0.25  # a call that took more of the window's time than this is a stall,
_FEWEST = 5  # if there are more calls than that

T = TypeVar("T")


class Progress:
    """Counts things done.

    Args:
        name: what is being done; begins each line.
        unit: of what is counted, plural.
        total: how many there are; None if nobody knows.
        done: how many are done already.
        enabled: false: show nothing (other ranks).
        stream: default: stderr.
    """

    def __init__(
        self,
        name: str,
        unit: str,
        total: int | None = None,
        *,
        done: int = 0,
        enabled: bool = True,
        stream: TextIO | None = None,
    ) -> None:
        self._name, self._unit, self._total = name, unit, total
        self._stream = stream or sys.stderr
        self._enabled = enabled
        self._done, self._first = done, done
        self._begun = self._last_line = self._last_call = time.monotonic()
        self._paces: deque[tuple[float, int]] = deque(maxlen=_WINDOW)  # seconds, things
        self._bar: Any = None
        if enabled and self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, initial=done, desc=name, unit=f" {unit}", leave=False,
                file=self._stream, dynamic_ncols=True,
            )  # fmt: skip

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def add(self, count: int, status: str = "") -> None:
        """`count` more are done; `status` is a short remark."""
        now = time.monotonic()
        if count > 0:
            self._paces.append((now - self._last_call, count))
        self._last_call = now
        self._done += count
        if self._bar is not None:
            self._bar.set_postfix_str(status, refresh=False)
            self._bar.update(count)
        elif self._enabled and now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            self.note("  ".join(part for part in (self._state(), status, self._speed()) if part))

    def show(self, done: int, total: int, status: str) -> None:
        """`done` of `total` (0: not known) are done."""
        self._total = total or None
        if self._bar is not None:
            self._bar.total = self._total
        self.add(done - self._done, status)

    def note(self, text: str) -> None:
        """Writes a line of its own."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        elif self._enabled:
            print(text, file=self._stream, flush=True)

    def close(self, result: str, stream: TextIO | None = None) -> None:
        """All are done; `result` ends the line, which goes to standard output."""
        if self._bar is not None:
            self._bar.close()
        seconds = time.monotonic() - self._begun
        done = self._done - self._first
        print(
            f"{self._name}: {done} {self._unit} in {seconds:.1f} s; {result}",
            file=stream or sys.stdout,
            flush=True,
        )

    def _state(self) -> str:
        of_all = f" of {self._total}" if self._total else ""
        return f"{self._name}: {self._done}{of_all} {self._unit}"

    def _speed(self) -> str:
        if not self._paces:
            return ""
        each = _seconds_each(self._paces)
        pace = f"{each:.2f} s each" if each >= 0.1 else f"{1 / max(each, 1e-9):.0f} per second"
        if not self._total:
            return pace
        return f"{pace}, {timedelta(seconds=round(each * max(0, self._total - self._done)))} left"


def _seconds_each(paces: Iterable[tuple[float, int]]) -> float:
    """Mean seconds per thing of (seconds, things) pairs; the longest ones go while they stall."""
    kept = sorted(paces)
    whole = sum(seconds for seconds, _ in kept)
    while len(kept) > _FEWEST and kept[-1][0] > _STALL * whole:
        whole -= kept.pop()[0]
    return sum(seconds for seconds, _ in kept) / sum(count for _, count in kept)


def watched(
    items: Iterable[T],
    name: str,
    unit: str,
    total: int | None = None,
    *,
    stream: TextIO | None = None,
    enabled: bool = True,
) -> Iterator[T]:
    """Yields `items` and shows how many there were so far: for what lasts within a step."""
    with Progress(name, unit, total, stream=stream, enabled=enabled) as progress:
        for item in items:
            yield item
            progress.add(1)
