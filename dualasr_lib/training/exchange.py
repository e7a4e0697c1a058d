"""Gradients summed over ranks while the backward pass still runs: torch's DistributedDataParallel.

What DistributedDataParallel alone does not give is kept here:

- a rank that runs out of memory (forward, backward or between) leaves nobody waiting: it answers
  the exchanges that the others still make with zeros, all ranks then agree to give the step up, and
  begin with a fresh reducer. Nothing is sent for that in a step that goes well;
- gradients are sums, not means: ranks have different weights (`StepResult.weight`);
- parameters that a step did not use are found in the graph; one that no rank used has no gradient;
- micro-batches but the last of a step send nothing.

Its own process group keeps its exchanges apart from those of objectives, so their order does not
matter. One process is the objective itself, and nothing is sent.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, distributed, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from dualasr_lib.training.contract import Objective, StepResult
from dualasr_lib.training.distributed import World

__all__ = ["Exchange"]

_BUCKET_MB = 25.0  # torch's default; the first bucket to be ready is 1 MB


class Exchange:
    """The objective of a model on this rank, whose backward pass sums gradients over all ranks.

    All ranks must make one, and call `pass_of(..., last=True)` and go backward through its loss
    once in each step, or `give_up`.
    """

    def __init__(self, model: nn.Module, objective: Objective, world: World) -> None:
        """Gives every rank the weights and buffers of rank 0. Later each rank keeps its own
        buffers, and rank 0's are saved: they must not hold statistics.
        """
        self._model = model
        self._objective = objective
        self._reducer: _Reducer | None = None
        if world.size > 1:
            self._group = distributed.new_group()
            self._reducer = self._fresh()

    def pass_of(self, batch: Any) -> StepResult:
        """The objective's result for a batch."""
        if self._reducer is None:
            return self._objective(self._model, batch)
        return self._reducer.pass_of(batch)

    def sending(self, last: bool) -> AbstractContextManager[Any]:
        """Around all that is done with a micro-batch, `last` of its step or not."""
        return nullcontext() if self._reducer is None else self._reducer.sending(last)

    def answer(self) -> None:
        """Starts to answer the exchanges that the other ranks have still to make; waits for none.

        To be called by a rank that cannot go on, before it meets the others.
        """
        if self._reducer is not None:
            self._reducer.answer()

    def give_up(self) -> None:
        """Ends the exchanges of a step that all ranks give up; they call it together."""
        if self._reducer is not None:
            self._reducer.answer()
            self._reducer.wait()
            self._reducer = None  # first: the hooks of the old one go with it
            self._reducer = self._fresh()

    def _fresh(self) -> "_Reducer":
        return _Reducer(_Whole(self._model, self._objective), self._group)


class _Box:
    """Keeps a result out of sight of DistributedDataParallel, which looks for tensors in outputs:
    those of terms need not lead to the loss."""

    def __init__(self, result: StepResult) -> None:
        self.result = result


class _Whole(nn.Module):
    """Model and objective as one module."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self._objective = objective

    def forward(self, batch: Any) -> tuple[Tensor, _Box]:
        """Loss () and the whole result."""
        result = self._objective(self.model, batch)
        return result.loss, _Box(result)


class _Reducer:
    """DistributedDataParallel, and an account of what it has sent in the step at hand."""

    def __init__(self, whole: _Whole, group: Any) -> None:
        self._group = group
        self._works: list[Any] = []  # of the step at hand, one for each bucket of gradients
        self._answered = False
        wrap: Any = DistributedDataParallel  # its annotations differ from torch to torch
        self._parallel = wrap(
            whole, process_group=group, broadcast_buffers=False, find_unused_parameters=True,
            gradient_as_bucket_view=True, bucket_cap_mb=_BUCKET_MB,
        )  # fmt: skip
        # The hook must not hold this object: the reducer would never be freed, nor its hooks.
        self._parallel.register_comm_hook(
            (group, self._works), lambda state, bucket: _summed(state, bucket)
        )

    def pass_of(self, batch: Any) -> StepResult:
        loss, box = self._parallel(batch)
        result: StepResult = box.result._replace(loss=loss)
        return result

    def sending(self, last: bool) -> AbstractContextManager[Any]:
        self._works.clear()
        silent: AbstractContextManager[Any] = self._parallel.no_sync()
        return nullcontext() if last else silent

    def answer(self) -> None:
        """As `torch.distributed.algorithms.Join` answers for a rank that has no more batches."""
        if self._answered:
            return
        self._answered = True
        reducer = self._parallel.reducer
        buckets = reducer._get_zeros_like_grad_buckets()
        left = buckets[len(self._works) :]
        for bucket in left:
            self._works.append(_send(bucket.buffer(), self._group))
        if left:  # else the reducer has sent it, behind its last bucket
            self._works.append(_send(reducer._get_local_used_map(), self._group))

    def wait(self) -> None:
        for work in self._works:
            work.wait()


def _send(tensor: Tensor, group: Any) -> Any:
    return distributed.all_reduce(tensor, group=group, async_op=True)


def _summed(state: tuple[Any, list[Any]], bucket: Any) -> "Future[Tensor]":
    """The sum of a bucket over ranks, to come."""
    group, works = state
    work = _send(bucket.buffer(), group)
    works.append(work)
    future: Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return future
