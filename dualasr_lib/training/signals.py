"""A polite end: SIGTERM and SIGINT become a flag, so that a run can save before it stops.

A second SIGINT (Ctrl-C again) ends the program at once.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interrupted", "StopSignal"]


class Interrupted(Exception):
    """A stop was asked for inside `StopSignal.interruptible`."""


class StopSignal:
    """Context that listens for SIGTERM and SIGINT (in the main thread; elsewhere it is deaf)."""

    def __init__(self) -> None:
        self.requested = False
        self._interruptible = False
        self._process = os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside, a stop raises `Interrupted`: for long work that may be given up half-way."""
        self._interruptible = True
        try:
            if self.requested:
                raise Interrupted
            yield
        finally:
            self._interruptible = False

    def hold(self) -> None:
        """From here on the work that `interruptible` is around is not given up."""
        self._interruptible = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a forked data worker: its parent still needs it, and ends it
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        if self._interruptible:
            raise Interrupted
