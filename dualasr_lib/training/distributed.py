"""Several processes as one: torchrun's environment, sums of numbers over ranks.

Thin on purpose: one process is the same code with a world of size 1, where nothing is sent.
"""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import torch
from torch import distributed

from dualasr_lib.core.memory import is_memory_error
from dualasr_lib.core.program import told_by

__all__ = [
    "LostRanksError",
    "World",
    "gather",
    "process_group",
    "sum_over_ranks",
]

_LOG = logging.getLogger(__name__)
_LOST = re.compile(
    r"gloo|nccl|(closed|reset) by peer|broken pipe|socket timeout|timed out waiting", re.IGNORECASE
)  # what the exchanges of torch say, in words of their own, when another process does not answer


class LostRanksError(ConnectionError):
    """Another process of the run ended, or did not answer in time."""


class World(NamedTuple):
    """This process among its fellows; the default is a process on its own."""

    rank: int = 0
    """Number of this process, 0 ... size - 1, over all machines."""
    size: int = 1
    """Processes in all."""
    local_rank: int = 0
    """Number of this process on its machine; also that of its GPU."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0


@contextmanager
def process_group(device: torch.device, patience: float) -> Iterator[World]:
    """Joins the processes that torchrun started (nccl on GPUs, gloo on CPUs) and leaves at the end.

    Without torchrun's environment it is a world of one.

    Args:
        patience: seconds that this process waits for the others at an exchange. One that ended is
            noticed at once where its connections were closed (gloo).

    Raises:
        LostRanksError: an exchange failed, or took longer.
    """
    if "WORLD_SIZE" not in os.environ:
        yield World()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
        os.environ.setdefault("NCCL_ASYNC_ERROR_HANDLING", "1")  # else it waits for ever
    backend = "nccl" if device.type == "cuda" else "gloo"
    _warn_of_old_addresses()
    name = f"process {os.environ.get('RANK', '?')} of {os.environ['WORLD_SIZE']}"
    try:
        distributed.init_process_group(backend, timeout=timedelta(seconds=patience))
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        yield World(distributed.get_rank(), distributed.get_world_size(), local_rank)
    except RuntimeError as error:
        if is_memory_error(error) or not _LOST.search(str(error)):
            raise
        raise LostRanksError(
            f"{name} lost the others: one of them ended (see its messages) or did not answer in "
            f"{patience:g} s (training.patience); started again, the run goes on from its last "
            f"checkpoint ({told_by(str(error))})"
        ) from error
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _warn_of_old_addresses() -> None:
    """torchrun keeps one store for all restarts, with the addresses of processes that have ended: a
    process that reads one before its new owner writes cannot connect, and uses up a restart."""
    values = [os.environ.get(f"TORCHELASTIC_{n}", "") for n in ("USE_AGENT_STORE", "MAX_RESTARTS")]
    if values[0] == "True" and values[1] not in ("", "0") and os.environ.get("RANK") == "0":
        _LOG.warning(
            "torchrun must be started with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for its restarts "
            "to find one another, but was not: some may fail (Connection refused)"
        )


def sum_over_ranks(values: Sequence[float], world: World, device: torch.device) -> list[float]:
    """The sum of each value over all ranks, in float64."""
    if world.size == 1:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(total)
    result: list[float] = total.tolist()
    return result


def gather(value: Any, world: World) -> list[Any]:
    """The plain value of each rank, in the order of ranks, on every rank."""
    if world.size == 1:
        return [value]
    values: list[Any] = [None] * world.size
    distributed.all_gather_object(values, value)
    return values
