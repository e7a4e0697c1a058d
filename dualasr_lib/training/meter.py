"""Sums of logged quantities since the last point of the log, over batches and ranks."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dualasr_lib.training.contract import Term
from dualasr_lib.training.distributed import World, gather

__all__ = ["Meter", "fetched"]


def fetched(terms: Mapping[str, Term]) -> dict[str, Term]:
    """The terms with their sums as numbers of the host: one transfer for those on the device."""
    tensors = {n: t.sum.detach() for n, t in terms.items() if isinstance(t.sum, Tensor)}
    if not tensors:
        return dict(terms)
    values = torch.stack([value.double().reshape(()) for value in tensors.values()]).tolist()
    return {**terms, **{n: Term(v, terms[n].count) for n, v in zip(tensors, values)}}


class Meter:
    """Adds up `Term`s by name and gives their means."""

    def __init__(self) -> None:
        self._totals: dict[str, tuple[float, float]] = {}

    def add(self, terms: Mapping[str, Term]) -> None:
        """Adds the terms of one batch (one transfer from the device for all of them)."""
        for name, term in fetched(terms).items():
            total, count = self._totals.get(name, (0.0, 0.0))
            self._totals[name] = (total + float(term.sum), count + float(term.count))

    def take(self, world: World) -> dict[str, float]:
        """Means over all ranks since the last call; all ranks must call it together."""
        joined: dict[str, tuple[float, float]] = {}
        for totals in gather(self._totals, world):
            for name, (total, count) in totals.items():
                before = joined.get(name, (0.0, 0.0))
                joined[name] = (before[0] + total, before[1] + count)
        self._totals = {}
        return {name: total / count for name, (total, count) in joined.items() if count}

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dict(self._totals)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        self._totals = dict(state)
