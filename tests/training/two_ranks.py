"""A program for two ranks: each takes its share of every batch. For test_training_distributed."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import tiny_run
import torch
from torch import nn

from dualasr_lib.training.contract import StepResult, Term
from dualasr_lib.training.distributed import World, process_group


class Shares(tiny_run.TinyBatches):
    """Items 0-1 for rank 0 and 2-5 for rank 1; all for a process on its own.

    Rank 1 has a batch too many: its epoch must end with that of rank 0.
    """

    def __init__(self, world: World) -> None:
        super().__init__(num_batches=5 + world.rank)
        self._share = slice(None) if world.size == 1 else (slice(0, 2), slice(2, 6))[world.rank]

    def __iter__(self) -> Iterator[tiny_run.TinyBatch]:
        for batch in super().__iter__():
            yield tiny_run.TinyBatch(batch.inputs[self._share], batch.targets, batch.ids)


def objective(model: nn.Module, batch: tiny_run.TinyBatch) -> StepResult:
    inputs = batch.inputs.double()
    errors = (model(inputs) - inputs[:, :1].tanh()).square()
    count = float(errors.numel())
    return StepResult(errors.mean(), {"error": Term(errors.sum(), count)}, weight=count)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    with process_group(torch.device("cpu")) as world:
        tiny_run.tiny_fit(
            args.directory,
            model=model,
            objective=objective,
            batches=Shares(world),
            world=world,
            max_steps=args.steps,
            validate=None,
        )


if __name__ == "__main__":
    main()
