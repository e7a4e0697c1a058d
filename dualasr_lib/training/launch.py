"""Several training processes on one machine, started by the program itself.

The same environment as torchrun's (RANK, WORLD_SIZE, ...), for machines where torchrun does not
start (torch 1.13.1 on Python 3.11) or is too much. Processes on several machines, and restarts,
are torchrun's.
"""

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

__all__ = ["run_processes"]

_PATIENCE = 60.0  # seconds that the others have to save and end after one of them failed
_POLL = 0.2
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def run_processes(command: Sequence[str], count: int, environment: Mapping[str, str]) -> int:
    """Runs `command` as `count` processes that find each other; the exit code of the whole.

    Each has RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, and its share of the threads
    of OMP_NUM_THREADS and MKL_NUM_THREADS. SIGTERM and SIGINT are passed on. If one fails, the
    others are asked to stop, and killed after a minute. 0 if all ended with 0; else the code of
    the one that failed first, as a shell gives it. No process is left behind, also not by
    `kill -9` of this one.
    """
    if count < 1:
        raise ValueError(f"processes must be 1 or more, got {count}")
    shared = dict(environment) | {
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        threads = environment.get(name, "")
        if threads.isdigit():
            shared[name] = str(max(1, int(threads) // count))
    processes: list[subprocess.Popen[bytes]] = []
    before = _pass_on(processes)
    try:
        for rank in range(count):
            own = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            # A session of its own: Ctrl-C reaches it once, passed on, and not twice.
            processes.append(
                subprocess.Popen(
                    command, env=own, start_new_session=True, preexec_fn=_die_with_parent()
                )
            )
        return _wait(processes)
    finally:
        _end(processes, 0.0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    """Until all have ended; as soon as one fails, the others are ended, too."""
    while True:
        codes = [process.poll() for process in processes]
        failed = [code for code in codes if code]
        if failed:
            _end(processes, _PATIENCE)
            return failed[0] if failed[0] > 0 else 128 - failed[0]
        if None not in codes:
            return 0
        time.sleep(_POLL)


def _end(processes: Sequence[subprocess.Popen[bytes]], patience: float) -> None:
    """Asks those that still run to stop, and kills them after `patience` seconds."""
    until = time.monotonic() + patience
    for process in processes:
        if patience and process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _pass_on(processes: Sequence[subprocess.Popen[bytes]]) -> dict[int, Any]:
    """Signals to this process go to all; gives the handlers that stood before."""

    def handle(number: int, frame: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    return {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}


def _die_with_parent() -> Callable[[], None]:
    """Called in the child before the program starts: Linux ends it when its parent is gone."""
    parent, libc = os.getpid(), ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return ask


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
