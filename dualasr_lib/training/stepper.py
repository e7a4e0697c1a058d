"""One optimiser step: forward, backward, average over micro-batches and ranks, update or skip.

Whatever happens to a batch, all ranks come to the same end of the step: they meet after the last
backward pass (and where an objective exchanges something), then update or skip together. Gradients
are summed over ranks within that backward pass (`exchange.py`).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from dualasr_lib.core.memory import is_memory_error
from dualasr_lib.core.ranks import AbandonedError, meet
from dualasr_lib.training.bad_batches import Suspect
from dualasr_lib.training.contract import Cause, Objective, Term
from dualasr_lib.training.distributed import gather, sum_over_ranks
from dualasr_lib.training.exchange import Exchange
from dualasr_lib.training.memory import release
from dualasr_lib.training.meter import fetched
from dualasr_lib.training.precision import autocast
from dualasr_lib.training.randomness import seed_all
from dualasr_lib.training.state import TrainState

__all__ = ["Skip", "StepReport", "Stepper"]


_LOSS = "loss of this batch"  # while it is fetched beside the terms


class Skip(NamedTuple):
    """Why a step made no update; the same on all ranks but for `suspects`."""

    cause: Cause
    reason: str
    """In words."""
    ids: tuple[str, ...]
    """Names of the items of the batches it failed on, of all ranks."""
    suspects: tuple[Suspect, ...]
    """This rank's batches among them."""


class StepReport(NamedTuple):
    """How a step went."""

    loss: float
    """Mean over the items of all micro-batches and ranks."""
    learning_rate: float
    signal_seconds: float
    """Seconds of signal in this rank's batches."""
    skip: Skip | None
    """None: the weights were updated."""


class Stepper:
    """Makes optimiser steps on the model of a `TrainState`."""

    def __init__(self, state: TrainState, objective: Objective) -> None:
        self._state = state
        self._exchange = Exchange(state.model, objective, state.run.world)

    def step(self, group: Sequence[Any]) -> StepReport:
        """One step from a group of batches; does not count it (`TrainState.end_step` does)."""
        state = self._state
        rate = state.learning_rate
        state.model.zero_grad(set_to_none=True)
        passes: list[_Pass] = []
        loss = math.nan
        failure = self._backward(group, passes)
        if failure is not None:
            skip: Skip | None = self._out_of_memory(failure, group[len(passes) :])
        else:
            own = [sum(p.loss * p.weight for p in passes), sum(p.weight for p in passes)]
            total, weight = sum_over_ranks(own, state.run.world, state.device)
            loss = total / weight
            skip = self._update(rate, weight, self._suspects(group, passes), loss)
        if skip is None:
            for passed in passes:
                state.meter.add(passed.terms)
        return StepReport(loss, rate, sum(p.signal_seconds for p in passes), skip)

    def _backward(self, group: Sequence[Any], passes: list["_Pass"]) -> str | None:
        """Adds up weighted gradients and appends to `passes`; None if all ranks came to the end.

        Else this rank's own message about memory, empty if it was another's.
        """
        state, failure, together = self._state, "", True
        try:
            failure = self._passes(group, passes)
            if failure:
                self._exchange.answer()
            meet(state.device, failed=bool(failure))
        except AbandonedError:
            together = False
        if together:
            return None
        self._exchange.give_up()
        state.model.zero_grad(set_to_none=True)  # only here are errors gone, and what they held
        release(state.device)
        return failure

    def _passes(self, group: Sequence[Any], passes: list["_Pass"]) -> str:
        """Ends early and says why where memory runs out."""
        for number, batch in enumerate(group):
            seed_all(*self._key(number))
            try:
                with self._exchange.sending(last=number == len(group) - 1):
                    passes.append(self._pass(batch))
            except (MemoryError, RuntimeError) as error:
                if not is_memory_error(error):
                    raise
                return str(error).split("\n")[0] or type(error).__name__
        return ""

    def _pass(self, batch: Any) -> "_Pass":
        state = self._state
        with autocast(state.device, state.config.dtype):
            result = self._exchange.pass_of(batch.to(state.device))
        if not 0 < result.weight < math.inf:
            raise ValueError(f"the weight of a batch must be above 0, but is {result.weight}")
        if not result.loss.requires_grad:
            raise ValueError(
                "the loss must depend on some parameter that is trained, but does not: freeze less "
                "(training.freeze)"
            )
        torch.autograd.backward(result.loss * (result.weight * state.loss_scale.value))
        terms = fetched({**result.terms, _LOSS: Term(result.loss.detach(), 1.0)})
        loss = float(terms.pop(_LOSS).sum)
        terms = {"loss": Term(loss * result.weight, result.weight), **terms}
        return _Pass(loss, result.weight, result.signal_seconds, terms)

    def _update(
        self, rate: float, weight: float, suspects: list[Suspect], loss: float
    ) -> Skip | None:
        """Updates the weights from gradients summed over ranks, unless some are not finite."""
        state = self._state
        if not math.isfinite(loss):
            worst = [suspect for suspect in suspects if not math.isfinite(suspect.loss)]
            return self._skip("not finite", f"the loss is {loss}", worst)
        _scale_gradients(state.model, 1 / (weight * state.loss_scale.value))
        update = state.optimizer.step(rate)
        excused = state.loss_scale.adapt(update.applied)
        if not update.applied:
            cause: Cause = "loss scale" if excused else "not finite"
            return self._skip(cause, f"the gradient norm is {update.grad_norm}", suspects)
        state.meter.add({"grad_norm": Term(update.grad_norm, 1.0)})
        return None

    def _out_of_memory(self, failure: str, left: Sequence[Any]) -> Skip:
        """On the ranks where it happened, the first of the batches `left` is to blame."""
        failures = gather(failure, self._state.run.world)
        reason = "; ".join(dict.fromkeys(text for text in failures if text))
        own = [Suspect(batch, math.nan, ()) for batch in left[:1] if failure]
        return self._skip("memory", f"out of memory ({reason})", own)

    def _skip(self, cause: Cause, reason: str, suspects: list[Suspect]) -> Skip:
        own = [name for suspect in suspects for name in suspect.batch.ids]
        ids = tuple(name for names in gather(own, self._state.run.world) for name in names)
        return Skip(cause, reason, ids, tuple(suspects))

    def _suspects(self, group: Sequence[Any], passes: list["_Pass"]) -> list[Suspect]:
        return [
            Suspect(batch, passed.loss, self._key(number))
            for number, (batch, passed) in enumerate(zip(group, passes))
        ]

    def _key(self, number: int) -> tuple[int | str, ...]:
        """Of all randomness in a pass: the same after a resume."""
        state = self._state
        return state.config.seed, state.step, number, state.run.world.rank, "step"


class _Pass(NamedTuple):
    """One batch, forward and backward."""

    loss: float
    weight: float
    signal_seconds: float
    terms: dict[str, Term]


def _scale_gradients(model: nn.Module, factor: float) -> None:
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    if factor != 1.0 and gradients:
        torch._foreach_mul_(gradients, factor)
