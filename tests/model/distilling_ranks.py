"""A program for one rank of several: distillation over its share of a batch. For test_all_ranks.

It writes losses and gradients of each run to OUTPUT.RANK.pt.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from distillation_cases import DIMS, VOCAB, decoder_of
from torch import Tensor, distributed, nn

from dualasr_lib.model.distillation import (
    BranchView,
    DistillationConfig,
    build_distiller,
)
from dualasr_lib.model.pairing import Sequences
from dualasr_lib.training.distributed import World, process_group

LENS = torch.tensor([6, 3, 0, 5])
"""Frames; an empty utterance is no item."""
SHARES = (slice(0, 1), slice(1, 4))
"""Utterances of ranks 0 and 1; a process on its own has all."""


class Losses(NamedTuple):
    """A mean over the utterances at hand, and what distillation says."""

    task: Tensor
    distilled: Tensor


class TwoBranches(nn.Module):
    """Linear maps of an input to all that distillation sees, and the distiller."""

    def __init__(self, config: DistillationConfig) -> None:
        super().__init__()
        self.full = nn.Linear(8, DIMS.encoder.full)
        self.streaming = nn.Linear(8, DIMS.encoder.streaming)
        self.skipped = nn.Linear(8, 8)  # only now and then in use, like a layer that is skipped
        self.decoders = nn.ModuleDict(
            {
                "full": nn.Linear(DIMS.encoder.full, DIMS.heads["attention"].full),
                "streaming": nn.Linear(DIMS.encoder.streaming, DIMS.heads["attention"].streaming),
            }
        )
        self.distiller = build_distiller(config, DIMS)

    def forward(self, x: Tensor, lens: Tensor, skip: bool) -> Losses:
        """x (N, S, 8). Whether a layer is skipped changes the graph, but no value."""
        x = x if skip else x + 0.0 * self.skipped(x)
        full, streaming = self._view(x, lens, "full"), self._view(x, lens, "streaming")
        distilled = self.distiller(full, streaming)
        decoders = [decoder_of(view).hidden for view in (full, streaming)]
        task = decoders[0].square().mean() + decoders[1].abs().mean()
        return Losses(task, distilled.encoder + 3.0 * distilled.heads["attention"])

    def _view(self, x: Tensor, lens: Tensor, branch: str) -> BranchView:
        hidden = getattr(self, branch)(x).tanh()
        states = self.decoders[branch](hidden[:, :3])
        uniform = x.new_zeros(*x.shape[:2], VOCAB)
        decoder = Sequences(states, uniform[:, :3], lens.clamp(max=3))
        return BranchView(Sequences(hidden, uniform, lens), {"attention": decoder})


def train(world: World, settings: dict[str, Any]) -> dict[str, Any]:
    """Two steps' losses and gradients, weighted and summed as the training loop does."""
    torch.manual_seed(0)
    weights: dict[str, Any] = {"encoder_weight": 1.0, "head_weights": {"attention": 1.0}}
    model = TwoBranches(DistillationConfig(**weights, **settings))
    model.double().train()
    x = torch.randn(4, int(LENS.max()), 8, dtype=torch.float64)
    share = SHARES[world.rank] if world.size > 1 else slice(None)
    result: dict[str, Any] = {}
    for step in range(2):
        model.zero_grad(set_to_none=True)
        lens = LENS[share]
        losses = model(x[share] + step, lens, world.rank == 1)
        torch.autograd.backward(sum(losses) * (len(lens) / len(x)))
        result[f"loss {step}"] = losses.distilled.detach()
        for name, parameter in model.named_parameters():
            if not name.startswith("skipped"):
                assert parameter.grad is not None
                if world.size > 1:
                    distributed.all_reduce(parameter.grad)
                result[f"{name} {step}"] = parameter.grad
    model.eval()  # validation is the first rank's alone: it must not wait for the others
    if world.is_main:
        result["evaluation"] = model(x, LENS, True).distilled.detach()
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("settings", help="a JSON list: of the distillation, one table a run")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with process_group(torch.device("cpu"), 60.0) as world:
        results = [train(world, settings) for settings in json.loads(args.settings)]
        torch.save(results, args.output.with_suffix(f".{world.rank}.pt"))


if __name__ == "__main__":
    main()
