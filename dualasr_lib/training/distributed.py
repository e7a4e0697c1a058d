"""Several processes as one: torchrun's environment, sums of gradients and numbers over ranks.

Thin on purpose: one process is the same code with a world of size 1, where nothing is sent.

Gradients are summed once per step, after all backward passes, and not by DistributedDataParallel
inside the last one: a rank that runs out of memory half-way would leave the others waiting there
for ever. So all ranks can agree first, accumulation sends nothing in between, and parameters that a
step did not use need no search of the graph. What is given up is sending while the backward pass
still runs; the models here are small (below 150 million parameters).
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import accumulate, chain
from typing import Any, NamedTuple

import torch
from torch import distributed, nn

__all__ = [
    "World",
    "gather",
    "process_group",
    "send_weights",
    "sum_gradients",
    "sum_over_ranks",
]

_PATIENCE = timedelta(hours=1)  # the other ranks wait while the main process validates
_BUCKET = 2**24  # elements sent at once: 64 MiB of float32 as extra memory


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
def process_group(device: torch.device) -> Iterator[World]:
    """Joins the processes that torchrun started (nccl on GPUs, gloo on CPUs) and leaves at the end.

    Without torchrun's environment it is a world of one.
    """
    if "WORLD_SIZE" not in os.environ:
        yield World()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        yield World(distributed.get_rank(), distributed.get_world_size(), local_rank)
    finally:
        distributed.destroy_process_group()


@torch.no_grad()
def send_weights(model: nn.Module, world: World) -> None:
    """Gives every rank the weights and buffers of rank 0; all ranks call it together.

    Later each rank keeps its own buffers, and rank 0's are saved: they must not hold statistics.
    What else a state dict holds (counters of steps) stays: it is not on the device, as nccl wants,
    but a copy made for saving, and a rank has it right from its checkpoint.
    """
    if world.size > 1:
        for value in chain(model.parameters(), model.buffers()):
            distributed.broadcast(value, src=0)


@torch.no_grad()
def sum_gradients(model: nn.Module, world: World) -> None:
    """Replaces each gradient by its sum over the ranks; all ranks call it together.

    A parameter that only some ranks used (skipped layers, late losses) counts as zero on the
    others; one that none used stays without a gradient.
    """
    if world.size == 1:
        return
    parameters = [p for p in model.parameters() if p.requires_grad]
    device = parameters[0].device
    users = sum_over_ranks([float(p.grad is not None) for p in parameters], world, device)
    for bucket in _buckets([p for p, count in zip(parameters, users) if count]):
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([part.reshape(-1) for part in parts])
        distributed.all_reduce(flat)
        ends = accumulate(p.numel() for p in bucket)
        for parameter, end in zip(bucket, ends):
            parameter.grad = flat[end - parameter.numel() : end].view_as(parameter)


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Runs of parameters of one type, of `_BUCKET` elements in all (or one larger parameter)."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        size = sum(p.numel() for p in bucket) + parameter.numel()
        if bucket and (size > _BUCKET or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


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
