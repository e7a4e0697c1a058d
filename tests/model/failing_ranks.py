"""A program for two ranks whose loss needs the rows of both, and where each in turn runs out of
memory. For test_all_ranks."""

import argparse
from pathlib import Path

import tiny_run
import torch
from torch import Tensor, nn

from dualasr_lib.model.all_ranks import rows_of_all_ranks
from dualasr_lib.training.contract import StepResult, Term
from dualasr_lib.training.distributed import process_group

TROUBLE = {
    "epoch0-batch1": (0, "before the exchanges"),
    "epoch0-batch2": (1, "between the exchanges"),
    "epoch0-batch3": (0, "between the exchanges of the backward pass"),
    "epoch0-batch4": (1, "behind the exchanges of the backward pass"),
}
"""Batch -> rank and where."""


def loss_of(x: Tensor, trouble: str) -> Tensor:
    """(n, C) rows of this rank -> a function of the rows of all ranks; one place may fail."""
    if trouble == "before the exchanges":
        tiny_run.exhaust_memory()
    if trouble == "behind the exchanges of the backward pass":
        x = tiny_run.GreedyBackward.apply(x)
    rows = rows_of_all_ranks(x)
    if trouble == "between the exchanges":
        tiny_run.exhaust_memory()
    if trouble == "between the exchanges of the backward pass":
        rows = tiny_run.GreedyBackward.apply(rows)
    again = rows_of_all_ranks(rows.tanh()[: x.shape[0]])
    return rows.var(dim=0).sum() + (again - 1.0).square().mean()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with process_group(torch.device("cpu"), 60.0) as world:

        def objective(model: nn.Module, batch: tiny_run.TinyBatch) -> StepResult:
            rank, where = TROUBLE.get(batch.ids[0], (-1, ""))
            loss = loss_of(model(batch.inputs), where if rank == world.rank else "")
            return StepResult(loss, {"steps": Term(1.0, 1.0)}, weight=float(len(batch.inputs)))

        tiny_run.tiny_fit(
            args.directory,
            model=nn.Linear(5, 8),
            objective=objective,
            batches=tiny_run.TinyBatches(),
            world=world,
            max_steps=8,
            max_oom_steps=4,
            validate=None,
        )


if __name__ == "__main__":
    main()
