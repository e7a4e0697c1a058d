"""One run per folder: two would delete each other's checkpoints and mix their logs."""

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dualasr_lib.training.distributed import World, gather

__all__ = ["sole_run"]


@contextmanager
def sole_run(directory: Path, world: World) -> Iterator[None]:
    """Inside, no other process can enter with `directory`; all ranks call it together.

    Rank 0 locks the file `.lock` there; the system unlocks it when that process ends, however that
    happens. The file stays: if it were removed, two runs could lock two files of this name.

    Raises:
        OSError: the folder cannot be written, or cannot be locked.
        ValueError: another run is inside (on all ranks, so that none waits for rank 0).
    """
    with ExitStack() as stack:
        free = not world.is_main or _lock(directory / ".lock", stack)
        if not all(gather(free, world)):
            raise ValueError(
                f"a folder must have one run at a time, but another one is writing into {directory}"
                " (it holds .lock there): wait for it, stop it, or choose another folder"
            )
        yield


def _lock(path: Path, stack: ExitStack) -> bool:
    """Whether `path` could be locked, until `stack` ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (see the next line)
    stack.enter_context(file)
    try:
        # not `flock`: data workers would inherit that lock, and keep it when this process is killed
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX allows both for "locked by another"
        return False
    return True
