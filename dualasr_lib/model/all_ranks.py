"""The rows of all ranks of a distributed run, with exact gradients.

It leaves out everything else about ranks: starting them, summing gradients of weights, sampling.

Letters: n rows of this rank, R ranks, C channels.
"""

from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from dualasr_lib.core.ranks import meet

__all__ = ["rows_of_all_ranks"]


def rows_of_all_ranks(rows: Tensor) -> Tensor:
    """(n, C), n its own on every rank -> (n_0 + n_1 + ..., C) in the order of ranks.

    All ranks must call it, and go backward through it, the same number of times in the same order:
    both passes wait for those of the others. Each rank then computes the same loss from the result,
    and its own rows get the sum of the gradients of all ranks. With losses weighted by w_r,
    gradients of weights summed over the ranks and divided by the sum of w_r, as the training loop
    does, this is the gradient of that one loss. In a world of one, and outside of any, the rows
    come back as they are.

    Raises:
        AbandonedError: a rank failed and will not come; in the backward pass too.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return rows
    if distributed.get_world_size() == 1:
        return rows
    counts = _counts(rows)
    padded = F.pad(rows, (0, 0, 0, max(counts) - rows.shape[0]))
    gathered = _Gather.apply(padded)  # (R, n_max, C)
    return torch.cat([part[:count] for part, count in zip(gathered, counts)])


def _counts(rows: Tensor) -> list[int]:
    """Rows of each rank."""
    own = torch.tensor([rows.shape[0]], device=rows.device)
    counts = own.new_empty(distributed.get_world_size(), 1)
    meet(rows.device)
    distributed.all_gather(list(counts), own)
    return [int(count) for count in counts.flatten().tolist()]


class _Gather(torch.autograd.Function):
    """(n, C) of one shape on all ranks -> (R, n, C)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        del ctx
        rows = rows.contiguous()
        gathered = rows.new_empty(distributed.get_world_size(), *rows.shape)
        meet(rows.device)
        distributed.all_gather(list(gathered), rows)
        return gathered

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        del ctx
        total = gradient.clone(memory_format=torch.contiguous_format)
        meet(gradient.device)
        distributed.all_reduce(total)
        return total[distributed.get_rank()]
