"""Numbers that change with the training step: piecewise-linear schedules held by their users.

The training loop tells the step once (`set_step`); modules read `Scheduled.now()`. The step is
saved with the model, so that evaluation sees the network that was trained; nothing is random.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn

__all__ = ["Knot", "Scheduled", "interpolate", "set_step"]


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
    """A float that follows `knots`; the step is saved with the model, so that a resumed run goes
    on.
    """

    step: torch.Tensor

    def __init__(self, *knots: tuple[float, float]) -> None:
        super().__init__()
        self.knots = tuple(Knot(*knot) for knot in knots)
        if any(a.step >= b.step for a, b in pairwise(self.knots)):
            raise ValueError(f"steps of a schedule must increase, but are {self.knots}")
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def now(self) -> float:
        """The value at the step that was told last; the same in training and in evaluation."""
        return interpolate(self.knots, float(self.step))


def set_step(model: nn.Module, step: int) -> None:
    """Tells every `Scheduled` inside `model` that `step` optimiser steps have been done."""
    for module in model.modules():
        if isinstance(module, Scheduled):
            module.step.fill_(step)
