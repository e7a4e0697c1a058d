"""Peak memory of a piece of work, measured in a process of its own.

The peak is VmHWM of /proc/self/status: unlike getrusage's ru_maxrss it starts anew with a new
program and so knows nothing of the process that asked. Base is what Python, torch and this package
hold before the work is built.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple, TypeVar

__all__ = ["Peak", "peak_memory", "resident_mb"]

T = TypeVar("T")
_STATUS = Path("/proc/self/status")


class Peak(NamedTuple):
    """Resident bytes."""

    peak: int
    """The most that the process ever held, base included."""
    base: int
    """Before the work was built."""

    @property
    def net(self) -> int:
        """The work's own share."""
        return self.peak - self.base


def peak_memory(work: Callable[[T], object], argument: T) -> Peak:
    """Peak of `work(argument)`; both are pickled, so `work` must be a function of a module.

    Raises:
        ValueError: not on Linux, or the process died, as it does when memory runs out.
    """
    if not _STATUS.exists():
        raise ValueError(f"peak memory is read from {_STATUS}, which this system must have")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(_watched, work, argument).result()
        except BrokenProcessPool:
            raise ValueError(
                "the process that measures memory must live to its end, but it was killed or "
                "crashed: is there enough memory for this batch?"
            ) from None


def resident_mb() -> float:
    """Memory of this process that is in RAM now."""
    return _resident("VmRSS") / 1e6


def _watched(work: Callable[[T], object], argument: T) -> Peak:
    base = _resident("VmRSS")
    work(argument)
    return Peak(_resident("VmHWM"), base)


def _resident(key: str) -> int:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{_STATUS} has no line {key}")
