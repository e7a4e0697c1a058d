"""One optimiser step: forward, backward, average over micro-batches and ranks, update or skip."""

import math
from typing import Any, NamedTuple

import torch
from torch import nn

from dualasr_lib.training.contract import Objective, Term
from dualasr_lib.training.distributed import gather, sum_over_ranks, wrap
from dualasr_lib.training.precision import autocast
from dualasr_lib.training.randomness import seed_all
from dualasr_lib.training.state import TrainState

__all__ = ["StepReport", "Stepper"]


class StepReport(NamedTuple):
    """How a step went."""

    loss: float
    """Mean over the items of all micro-batches and ranks."""
    learning_rate: float
    signal_seconds: float
    """Seconds of signal in this rank's batches."""
    skipped: str
    """Why no update was made; empty if it was."""
    excused: bool
    """Skipped only because the float16 loss scale was too large; it has been lowered."""
    ids: tuple[str, ...]
    """Names of the items of all ranks, of a skipped step only."""


class Stepper:
    """Makes optimiser steps on the model of a `TrainState`."""

    def __init__(self, state: TrainState, objective: Objective) -> None:
        self._state = state
        self._objective = objective
        self._module = wrap(state.model, state.run.world)

    def step(self, group: list[Any]) -> StepReport:
        """One step from a group of batches; does not count it (`TrainState.end_step` does)."""
        state, world = self._state, self._state.run.world
        rate = state.learning_rate
        sums = self._backward(group)
        total, weight = sum_over_ranks([sums.loss, sums.weight], world, state.device)
        loss = total / weight
        if math.isfinite(loss):
            skipped, excused = self._update(rate, weight)
        else:
            skipped, excused = f"the loss is {loss}", False
        if not skipped:
            for terms in sums.terms:
                state.meter.add(terms)
        ids = _ids(group, self._state) if skipped else ()
        return StepReport(loss, rate, sums.signal_seconds, skipped, excused, ids)

    def _backward(self, group: list[Any]) -> "_Sums":
        """Adds up weighted gradients of the group's batches."""
        state = self._state
        state.model.zero_grad(set_to_none=True)
        sums = _Sums(0.0, 0.0, 0.0, [])
        for number, batch in enumerate(group):
            seed_all(state.config.seed, state.step, number, state.run.world.rank, "step")
            with autocast(state.device, state.config.dtype):
                result = self._objective(self._module, batch.to(state.device))
            if not 0 < result.weight < math.inf:
                raise ValueError(f"the weight of a batch must be above 0, but is {result.weight}")
            torch.autograd.backward(result.loss * (result.weight * state.loss_scale.value))
            loss = float(result.loss.detach()) * result.weight
            terms = {"loss": Term(loss, result.weight), **result.terms}
            sums = sums.plus(loss, result.weight, result.signal_seconds, terms)
        return sums

    def _update(self, rate: float, weight: float) -> tuple[str, bool]:
        """(why not updated, excused); gradients are sums, and DDP has divided them by its size."""
        state = self._state
        _scale_gradients(state.model, state.run.world.size / (weight * state.loss_scale.value))
        update = state.optimizer.step(rate)
        excused = state.loss_scale.adapt(update.applied)
        if not update.applied:
            return f"the gradient norm is {update.grad_norm}", excused
        state.meter.add({"grad_norm": Term(update.grad_norm, 1.0)})
        return "", False


class _Sums(NamedTuple):
    loss: float
    weight: float
    signal_seconds: float
    terms: list[dict[str, Term]]

    def plus(
        self, loss: float, weight: float, signal_seconds: float, terms: dict[str, Term]
    ) -> "_Sums":
        return _Sums(
            self.loss + loss,
            self.weight + weight,
            self.signal_seconds + signal_seconds,
            [*self.terms, terms],
        )


def _scale_gradients(model: nn.Module, factor: float) -> None:
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    if factor != 1.0 and gradients:
        torch._foreach_mul_(gradients, factor)


def _ids(group: list[Any], state: TrainState) -> tuple[str, ...]:
    own = [name for batch in group for name in batch.ids]
    return tuple(name for names in gather(own, state.run.world) for name in names)
