"""Batches in groups of one optimiser step, from wherever a run was left, in step with all ranks."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from dualasr_lib.training.contract import Batches, Redealable
from dualasr_lib.training.distributed import World, gather, sum_over_ranks
from dualasr_lib.training.randomness import seed_all

__all__ = ["Feed"]


class Feed:
    """Hands out groups of `accumulate` batches; the last group of an epoch may be shorter."""

    def __init__(
        self, batches: Batches, accumulate: int, seed: int, world: World, device: torch.device
    ) -> None:
        self._batches = batches
        self._accumulate = accumulate
        self._seed = seed
        self._world = world
        self._device = device
        self._iterator: Iterator[Any] = iter(())

    def start(self, epoch: int, positions: list[Mapping[str, Any]] | None = None) -> None:
        """Begins `epoch` (from 0), or goes on inside it from the position of each rank. Those of
        another number of ranks are dealt anew.

        Raises:
            ValueError: the batches cannot do that.
        """
        self._batches.set_epoch(epoch)
        if positions is not None:
            if len(positions) == self._world.size:
                self._batches.load_state_dict(positions[self._world.rank])
            elif isinstance(self._batches, Redealable):
                self._batches.redeal(positions)
            else:
                raise ValueError(
                    f"a run of {len(positions)} processes cannot go on in mid-epoch with "
                    f"{self._world.size}: start from a checkpoint at the end of an epoch"
                )
        self._iterator = iter(self._batches)

    def next_group(self, step: int) -> list[Any]:
        """The batches of the step that follows `step` done ones; none at the end of the epoch.

        The epoch ends for all ranks when it ends for one.
        """
        group: list[Any] = []
        for number in range(self._accumulate):
            seed_all(self._seed, step, number, self._world.rank, "fetch")
            batch = next(self._iterator, None)
            have = sum_over_ranks([float(batch is not None)], self._world, self._device)[0]
            if batch is None or have < self._world.size:
                break
            group.append(batch)
        return group

    def positions(self) -> list[Mapping[str, Any]]:
        """Where each rank is; all ranks must call it together."""
        return gather(self._batches.state_dict(), self._world)
