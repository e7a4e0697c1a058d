"""Child processes of prepare.sh: none outlives its parent, and output is shown when one fails."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dualasr_lib.recipe.stage import PrepareError

__all__ = ["die_with_parent", "run_program"]

_HEARTBEAT = 10.0
"""Seconds between two lines that say that a program is still at work."""


def die_with_parent() -> None:
    """Called in a child process: Linux kills it when its parent dies, even by kill -9.

    Otherwise workers of a killed run would go on writing beside its successor.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def run_program(arguments: Sequence[str]) -> str:
    """Runs a program to its end and returns what it printed.

    Raises:
        PrepareError: it failed; the message ends with what it printed to stderr.
    """
    process = subprocess.Popen(
        arguments,
        env=os.environ | {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"},  # same sets, same locale
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        preexec_fn=die_with_parent,
    )
    start = time.monotonic()
    while True:
        try:
            output, errors = process.communicate(timeout=_HEARTBEAT)
            break
        except subprocess.TimeoutExpired:
            name = Path(arguments[0]).name
            print(
                f"  {name} at work, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True
            )
    if process.returncode:
        raise PrepareError(f"{' '.join(arguments)} failed:\n{errors}")
    return output
