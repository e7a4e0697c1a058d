"""Progress of a run: a bar on a terminal, a line every few seconds elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from types import TracebackType
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

__all__ = ["Progress", "watched"]

_SECONDS_BETWEEN_LINES = 10.0

T = TypeVar("T")


def watched(items: Iterable[T], what: str, *, stream: TextIO | None = None) -> Iterator[T]:
    """Yields `items` and shows how many there were so far: for what lasts within a step.

    Args:
        what: `validation: batch`, for example; a number follows.
    """
    stream = stream or sys.stderr
    start = last_line = time.monotonic()
    bar = tqdm(desc=what, file=stream, leave=False) if stream.isatty() else None
    try:
        for number, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            if bar is not None:
                bar.update()
            elif now - last_line >= _SECONDS_BETWEEN_LINES:
                last_line = now
                print(f"{what} {number} after {now - start:.0f} s", file=stream, flush=True)
    finally:
        if bar is not None:
            bar.close()


class Progress:
    """Shows steps done, speed and time left; silent where `enabled` is false."""

    def __init__(self, step: int, *, enabled: bool = True, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._enabled = enabled
        self._first_step, self._start = step, time.monotonic()
        self._last_line = self._start
        self._bar: Any = None
        if enabled and self._stream.isatty():
            self._bar = tqdm(initial=step, unit="step", file=self._stream, dynamic_ncols=True)

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

    def show(self, step: int, total: int, status: str) -> None:
        """Reports `step` of `total` (0 = not known yet) and a short status."""
        if self._bar is not None:
            self._bar.total = total or None
            self._bar.set_postfix_str(status, refresh=False)
            self._bar.update(step - self._bar.n)
        elif self._enabled and time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self.note(f"step {step}/{total or '?'}  {status}  {self._speed(step, total)}")

    def note(self, text: str) -> None:
        """Writes a line of its own."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        elif self._enabled:
            print(text, file=self._stream, flush=True)

    def _speed(self, step: int, total: int) -> str:
        seconds = (time.monotonic() - self._start) / max(1, step - self._first_step)
        if not total:
            return f"{seconds:.2f} s/step"
        left = timedelta(seconds=round(seconds * max(0, total - step)))
        return f"{seconds:.2f} s/step, {left} left"
