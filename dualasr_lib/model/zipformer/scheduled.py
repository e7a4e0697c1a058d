"""Numbers that change with the training step: piecewise-linear schedules held by their users.

The training loop tells the optimiser step once (`set_step`); modules read `Scheduled.now()`. Both
stay in Python: reading a schedule never waits for a GPU. Nothing is random.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Knot", "Scheduled", "interpolate", "set_step"]

_NAME = "step"  # in a state dict


class Knot(NamedTuple):
    """One corner of a piecewise-linear schedule."""

    step: float
    value: float


def interpolate(knots: Sequence[Knot], step: float) -> float:
    """The value at `step`; constant before the first knot and after the last."""
    if step <= knots[0].step:
        return knots[0].value
    for left, right in pairwise(knots):
        if step < right.step:
            share = (step - left.step) / (right.step - left.step)
            return left.value + share * (right.value - left.value)
    return knots[-1].value


class Scheduled(nn.Module):
    """A float that follows `knots`, given in optimiser steps; one knot makes a constant.

    In a state dict the step is an int64 scalar tensor, but no buffer: it stays off the GPU, and
    DistributedDataParallel has nothing to broadcast.
    """

    def __init__(self, *knots: tuple[float, float], saved: bool = True) -> None:
        """`saved` False keeps the step out of state dicts: for what only acts in training, where
        the loop tells the step anyway. Switching such a thing on or off keeps checkpoints valid.
        """
        super().__init__()
        self.knots = tuple(Knot(*knot) for knot in knots)
        if not self.knots:
            raise ValueError("a schedule must have at least one knot, but has none")
        if any(a.step >= b.step for a, b in pairwise(self.knots)):
            raise ValueError(f"steps of a schedule must increase, but are {self.knots}")
        self.saved = saved
        self.step = 0

    def now(self) -> float:
        """The value at the step that was told last; the same in training and in evaluation."""
        return interpolate(self.knots, self.step)

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        if self.saved:
            destination[prefix + _NAME] = torch.tensor(self.step)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Tensor],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        name = prefix + _NAME
        if self.saved and name in state_dict:
            self.step = int(state_dict[name])
        elif self.saved and strict:
            missing_keys.append(name)
        if strict:
            known = {name} if self.saved else set()
            unexpected_keys += [k for k in state_dict if k.startswith(prefix) and k not in known]


def set_step(model: nn.Module, step: int) -> None:
    """Tells every `Scheduled` inside `model` that `step` optimiser steps have been done."""
    for module in model.modules():
        if isinstance(module, Scheduled):
            module.step = step
