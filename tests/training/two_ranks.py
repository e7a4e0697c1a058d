"""A program for two ranks: each takes its share of every batch. For test_training_distributed.

A process on its own gets the joined batch: the shares of both ranks, and of `--join` batches.
"""

import argparse
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tiny_run
import torch
from torch import Tensor, distributed, nn

from dualasr_lib.core.ranks import meet
from dualasr_lib.training.contract import Share, StepResult, Term, Validation
from dualasr_lib.training.distributed import World, process_group

TROUBLED = "epoch0-batch3"


class Shares(tiny_run.TinyBatches):
    """Items 0-1 for rank 0 and 2-5 for rank 1; all for a process on its own.

    Rank 1 has a batch too many: its epoch must end with that of rank 0.
    """

    def __init__(self, world: World, join: int) -> None:
        super().__init__(num_batches=5 + world.rank)
        self._share = slice(None) if world.size == 1 else (slice(0, 2), slice(2, 6))[world.rank]
        self._join = join

    def redeal(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Both ranks are behind the same batches, and one alone takes the joined ones."""
        self._position = min(state["position"] for state in states)

    def __iter__(self) -> Iterator[tiny_run.TinyBatch]:
        waiting: list[tiny_run.TinyBatch] = []
        for batch in super().__iter__():
            waiting.append(batch._replace(inputs=batch.inputs[self._share]))
            if len(waiting) == self._join or self._position == self._num_batches:
                inputs = torch.cat([item.inputs for item in waiting])
                ids = tuple(name for item in waiting for name in item.ids)
                yield tiny_run.TinyBatch(inputs, inputs, ids)
                waiting = []


class Net(nn.Module):
    """`rare` is used for few items, so often by one rank only; `never` by nobody."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.main = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1)).double()
        self.rare = nn.Linear(5, 1).double()
        self.never = nn.Linear(5, 1).double()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.main(x)
        chosen = x[:, 1] > 1.0
        if chosen.any():
            y = y.masked_scatter(chosen[:, None], y[chosen] + self.rare(x[chosen]))
        return y


class SumOverRanks(torch.autograd.Function):
    """An exchange in the forward and in the backward pass, each after a meeting."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return SumOverRanks._exchange(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return SumOverRanks._exchange(gradients[0])

    @staticmethod
    def _exchange(x: Tensor) -> Tensor:
        total = x.clone()
        meet(x.device)
        if distributed.is_initialized():
            distributed.all_reduce(total)
        return total


def objective_of(world: World, trouble: str) -> Callable[[nn.Module, Any], StepResult]:
    """The squared error; one batch of rank 1 (or of the process on its own) is in `trouble`."""

    def objective(model: nn.Module, batch: tiny_run.TinyBatch) -> StepResult:
        inputs = batch.inputs.double()
        errors = (model(inputs) - inputs[:, :1].tanh()).square()
        count = float(errors.numel())
        troubled = TROUBLED in batch.ids and world.rank == world.size - 1
        troubled = troubled and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if troubled and trouble == "forward":
            tiny_run.exhaust_memory()
        if troubled and trouble == "stuck":
            time.sleep(8.0)  # longer than the others wait
        if troubled and trouble in ("killed", "stuck"):
            os.kill(os.getpid(), signal.SIGKILL)
        loss = errors.mean() + 0.0 * SumOverRanks.apply(errors.sum())
        if troubled:
            loss = _spoil(loss, trouble)
        return StepResult(loss, {"error": Term(errors.sum(), count)}, weight=count)

    return objective


def _spoil(loss: Tensor, trouble: str) -> Tensor:
    if trouble == "between":
        tiny_run.exhaust_memory()
    if trouble == "backward":
        return tiny_run.GreedyBackward.apply(loss)  # type: ignore[no-any-return]
    if trouble == "nan":
        return loss * math.nan
    if trouble == "error":
        raise RuntimeError("something else")
    return loss


def validate_of(world: World, trouble: str) -> Callable[[nn.Module, int, Share], Validation]:
    """The error on fixed data, shared by the ranks; rank 1 is told to stop in the midst of it."""

    def validate(model: nn.Module, turn: int, share: Share) -> Validation:
        inputs = torch.linspace(-1, 1, 35).double().reshape(7, 5)[share.rank :: share.size]
        if trouble == "signal" and world.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60.0)
        errors = sum(share.gather(float((model(inputs) - 1.0).square().sum())))
        return Validation({"error": errors / 7})

    return validate


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--join", type=int, default=1)
    parser.add_argument("--trouble", default="")
    parser.add_argument("--limit", type=int, default=1)
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--patience", type=float, default=60.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with process_group(torch.device("cpu"), args.patience) as world:
        model = Net()
        if world.rank == 1:
            nn.init.zeros_(model.rare.weight)  # rank 0's weights must win
        tiny_run.tiny_fit(
            args.directory,
            model=model,
            objective=objective_of(world, args.trouble),
            batches=Shares(world, args.join),
            world=world,
            max_steps=args.steps,
            accumulate=args.accumulate,
            max_oom_steps=args.limit,
            validate=validate_of(world, args.trouble) if args.validate else None,
        )


if __name__ == "__main__":
    main()
