"""Several processes as one: torchrun's environment, gradients averaged by DDP, sums over ranks.

Thin on purpose: one process is the same code with a world of size 1, where nothing is sent.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import distributed, nn

__all__ = ["World", "gather", "local_device", "process_group", "sum_over_ranks", "wrap"]


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


def local_device(name: str) -> torch.device:
    """The device of this process: `cpu`, `cuda` (GPU number LOCAL_RANK), or `auto` (GPU if any).

    Raises:
        ValueError: another name than auto, cpu and cuda, or `cuda` where torch sees none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        if not torch.cuda.is_available():
            raise ValueError("device cuda needs a GPU that torch can see, but there is none")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if name != "cpu":
        raise ValueError(f"device must be auto, cpu or cuda, but is {name!r}")
    return torch.device(name)


@contextmanager
def process_group(device: torch.device) -> Iterator[World]:
    """Joins the processes that torchrun started (nccl on GPUs, gloo on CPUs) and leaves at the end.

    Without torchrun's environment it is a world of one.
    """
    if "WORLD_SIZE" not in os.environ:
        yield World()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        yield World(distributed.get_rank(), distributed.get_world_size(), local_rank)
    finally:
        distributed.destroy_process_group()


def wrap(model: nn.Module, world: World) -> nn.Module:
    """`model` itself, or (size > 1) in DDP, whose backward averages gradients over the ranks.

    Parameters without a gradient in a step are allowed (skipped layers, late losses).
    """
    if world.size == 1:
        return model
    return nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)


def sum_over_ranks(values: Sequence[float], world: World, device: torch.device) -> list[float]:
    """The sum of each value over all ranks, in float64."""
    if world.size == 1:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(total)  # type: ignore[no-untyped-call]
    result: list[float] = total.tolist()
    return result


def gather(value: Any, world: World) -> list[Any]:
    """The plain value of each rank, in the order of ranks, on every rank."""
    if world.size == 1:
        return [value]
    values: list[Any] = [None] * world.size
    distributed.all_gather_object(values, value)  # type: ignore[no-untyped-call]
    return values
