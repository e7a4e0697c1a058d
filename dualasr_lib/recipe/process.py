"""Child processes of prepare.sh: none outlives its parent, and output is shown when one fails."""

import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from dualasr_lib.core.files import write_atomically
from dualasr_lib.core.program import told_by
from dualasr_lib.recipe.stage import PrepareError

__all__ = ["die_with_parent", "run_lhotse", "run_program", "worker_pool"]

_BACKEND = "LHOTSE_AUDIO_BACKEND"
_HEARTBEAT = 10.0
"""Seconds between two lines that say that a program is still at work."""


def die_with_parent() -> None:
    """Called in a child process: Linux kills it when its parent dies, even by kill -9.

    Otherwise workers of a killed run would go on writing beside its successor.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


@contextmanager
def worker_pool(jobs: int, initializer: Callable[[], None]) -> Iterator[ProcessPoolExecutor]:
    """Processes to work in.

    Raises:
        PrepareError: one of them died, most likely killed by the system for its memory.
    """
    try:
        with ProcessPoolExecutor(jobs, initializer=initializer) as pool:
            yield pool
    except BrokenProcessPool:
        raise PrepareError(
            "a worker process died (killed from outside, or for want of memory): use fewer --jobs;"
            " the same command goes on"
        ) from None


def run_program(arguments: Sequence[str], log: Path, **settings: str) -> str:
    """Runs a program to its end and returns what it printed.

    Args:
        log: where all that it printed to stderr is written if it fails.
        settings: further environment variables.

    Raises:
        PrepareError: it failed; the message is one line and names the log.
    """
    process = subprocess.Popen(
        arguments,
        env=os.environ | settings | {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"},  # same sets, locale
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
        write_atomically(log, f"{shlex.join(arguments)}\n{errors}".encode())
        name = Path(arguments[0]).name
        raise PrepareError(f"{name} failed: {told_by(errors)} (all of it: '{log}')")
    log.unlink(missing_ok=True)  # of a run that failed
    return output


def run_lhotse(*arguments: str, data_dir: Path) -> None:
    """Runs the program `lhotse`, unmodified; where sph2pipe is not installed, libsndfile reads all
    audio, if the user's LHOTSE_AUDIO_BACKEND does not say otherwise.

    Raises:
        PrepareError: as `run_program`; the log is in `DATA/report`.
    """
    program = str(Path(sys.executable).with_name("lhotse"))
    settings = {}
    if shutil.which("sph2pipe") is None and _BACKEND not in os.environ:
        settings[_BACKEND] = "LibsndfileBackend"
    run_program([program, *arguments], data_dir / "report" / "lhotse.log", **settings)
