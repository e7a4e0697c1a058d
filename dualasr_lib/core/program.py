"""What every command line program shares: errors of the user in one line, exit codes, progress."""

import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from dualasr_lib.core.memory import is_memory_error

__all__ = ["INTERRUPTED", "Progress", "run_program"]

INTERRUPTED = 130
"""Exit code of a program that a signal stopped: what shells give for SIGINT."""

_TRACEBACK = "DUALASR_TRACEBACK"
_SECONDS_BETWEEN_LINES = 10.0


def run_program(main: Callable[[], None]) -> None:
    """Runs `main`; an error of the user's becomes one line on stderr and exit code 1.

    Such errors are ValueError, OSError, a missing optional library (ImportError), and memory.

    With the environment variable DUALASR_TRACEBACK=1 the traceback is shown instead.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    try:
        main()
    except Exception as error:
        if os.environ.get(_TRACEBACK) or not _is_users(error):
            raise
        print(f"{os.path.basename(sys.argv[0])}: error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"{os.path.basename(sys.argv[0])}: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _is_users(error: Exception) -> bool:
    return isinstance(error, (ValueError, OSError, ImportError)) or is_memory_error(error)


class Progress:
    """Counts things done: a bar on a terminal, elsewhere a line on stderr every ten seconds."""

    def __init__(self, name: str, unit: str, total: int | None = None) -> None:
        self._name, self._unit, self._total = name, unit, total
        self._done, self._begun = 0, time.monotonic()
        self._said = self._begun
        self._bar: Any = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total, desc=name, unit=f" {unit}", leave=False)

    def add(self, count: int) -> None:
        """`count` more are done."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            of_all = f" of {self._total}" if self._total else ""
            print(f"{self._name}: {self._done}{of_all} {self._unit}", file=sys.stderr, flush=True)

    def close(self, result: str) -> None:
        """All are done; `result` ends the line."""
        if self._bar is not None:
            self._bar.close()
        seconds = time.monotonic() - self._begun
        print(f"{self._name}: {self._done} {self._unit} in {seconds:.1f} s; {result}", flush=True)
