"""The training loop: fetch, step, log, validate, save, until it is done or told to stop.

`fit` goes on by itself from the newest checkpoint of its folder, exactly: on a CPU a run that was
killed and started again makes the same numbers, bit by bit, as one that was not. SIGTERM and
SIGINT end it after the step at hand, with everything saved.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from dualasr_lib.core.progress import Progress
from dualasr_lib.core.ranks import AbandonedError, meet
from dualasr_lib.training.bad_batches import BadStep, dump
from dualasr_lib.training.contract import (
    Batches,
    FitResult,
    NonFiniteError,
    Objective,
    OutOfMemoryError,
    Run,
    Share,
    Term,
    Validate,
)
from dualasr_lib.training.distributed import gather, sum_over_ranks
from dualasr_lib.training.fit_config import FitConfig
from dualasr_lib.training.lock import sole_run
from dualasr_lib.training.log_names import DESCRIPTIONS
from dualasr_lib.training.logbook import Logbook
from dualasr_lib.training.signals import Interrupted, StopSignal
from dualasr_lib.training.state import TrainState
from dualasr_lib.training.stepper import Skip, Stepper, StepReport

__all__ = ["fit"]


def fit(
    model: nn.Module,
    objective: Objective,
    batches: Batches,
    run: Run,
    config: FitConfig,
    *,
    validate: Validate | None = None,
    on_step: Callable[[int], None] | None = None,
) -> FitResult:
    """Trains `model` (already on its device) and returns how far it got.

    Args:
        objective: loss and logged terms of a batch.
        batches: training batches; see `Batches` for what makes a resume exact.
        run: folder, config and fingerprints for the checkpoints, and this process's rank.
        validate: called at the end of epochs, or every `config.validate_every` steps.
        on_step: called with the number of steps done before each step, for schedules in a model.

    Raises:
        CheckpointError: a checkpoint is damaged or cannot be written.
        NonFiniteError: too many losses or gradients were not finite.
        OutOfMemoryError: too many batches did not fit into memory.
        ValueError: config, data and checkpoint do not go together, or another run is writing
            into the same folder.
    """
    with StopSignal() as stop, sole_run(run.directory, run.world):
        state = TrainState(model, batches, run, config)
        resumed = state.resume()
        is_main = run.world.is_main
        with (
            Logbook(
                run.directory,
                state.step,
                state.log_lines,
                descriptions={**DESCRIPTIONS, **run.descriptions},
                enabled=is_main,
            ) as logbook,
            Progress("training", "steps", done=state.step, enabled=is_main) as progress,
        ):
            if config.freeze:
                progress.note(f"frozen: {state.frozen.describe()}")
            if resumed is not None:
                progress.note(f"going on from {resumed} (step {state.step}, epoch {state.epoch})")
            desk = _Desk(state, logbook, progress, stop)
            _run(state, Stepper(state, objective), desk, validate, on_step)
            desk.save()
    return FitResult(state.step, state.epoch, state.finished and not state.validation_due)


def _run(
    state: TrainState,
    stepper: Stepper,
    desk: "_Desk",
    validate: Validate | None,
    on_step: Callable[[int], None] | None,
) -> None:
    state.frozen.train()
    desk.validate_if_due(validate)  # a stop may have cut it short
    while not state.finished and not desk.told_to_stop():
        start = time.monotonic()
        if on_step is not None:
            on_step(state.step)
        group = state.feed.next_group(state.step)
        waited = time.monotonic() - start
        if group:
            desk.record(stepper.step(group), start, waited)
        else:
            state.end_epoch()
        desk.validate_if_due(validate)
        desk.save_if_due()


class _Desk:
    """The paperwork between steps: counting, logging, validating, saving."""

    def __init__(
        self, state: TrainState, logbook: Logbook, progress: Progress, stop: StopSignal
    ) -> None:
        self._state = state
        self._logbook = logbook
        self._progress = progress
        self._stop = stop

    def told_to_stop(self) -> bool:
        """Whether a signal asked any rank to stop; all ranks call it together."""
        state = self._state
        asked = sum_over_ranks([float(self._stop.requested)], state.run.world, state.device)
        return asked[0] > 0

    def record(self, report: StepReport, start: float, waited: float) -> None:
        """Counts a step that began at `start` and logs it if a point is due.

        Args:
            waited: seconds of it until its batches were there.

        Raises:
            NonFiniteError, OutOfMemoryError: too many steps of this epoch had to be skipped.
        """
        state = self._state
        state.end_step(report.skip.cause if report.skip else None)
        self._count_time(report, time.monotonic() - start, waited)
        if report.skip:
            self._record_skipped(report.skip)
        if state.step % state.config.log_every == 0 or state.finished:
            self._log(report)
        status = f"epoch {state.epoch}  loss {report.loss:.4f}  lr {report.learning_rate:.2e}"
        self._progress.show(state.step, state.total_steps, status)

    def validate_if_due(self, validate: Validate | None) -> None:
        """Validates and logs; a stop signal breaks it off, to be made up for after a resume."""
        state = self._state
        if not state.validation_due:
            return
        if validate is not None:
            try:
                with self._stop.interruptible(), torch.no_grad():
                    state.model.eval()
                    world = state.run.world
                    share = Share(world.rank, world.size, self._gather)
                    found = validate(state.model, state.validation_turn, share)
            except Interrupted:
                with suppress(AbandonedError):
                    meet(state.device, failed=True)  # the others wait in `_gather`
                return
            except AbandonedError:  # another rank was interrupted
                return
            finally:
                state.frozen.train()
            scores = {f"valid/{name}": value for name, value in found.scores.items()}
            texts = {f"valid/{name}": text for name, text in found.texts.items()}
            images = {f"valid/{name}": image for name, image in found.images.items()}
            self._logbook.point(state.step, scores, texts, images)
            shown = "  ".join(f"{name} {value:.4f}" for name, value in found.scores.items())
            self._progress.note(f"step {state.step}, epoch {state.epoch}: valid {shown}")
        state.validation_due = False

    def _gather(self, value: Any) -> list[Any]:
        """Once in a validation: values of all ranks, unless a signal broke one of them off."""
        self._stop.hold()
        meet(self._state.device)
        return gather(value, self._state.run.world)

    def save_if_due(self) -> None:
        """Saves at the end of an epoch and every `save_every` steps."""
        state, every = self._state, self._state.config.save_every
        if state.steps_in_epoch == 0 or (every and state.step % every == 0):
            self.save()

    def save(self) -> None:
        """Saves everything, the log first."""
        self._logbook.flush()
        self._state.save(self._logbook.num_lines)

    def _count_time(self, report: StepReport, seconds: float, waited: float) -> None:
        size = self._state.run.world.size
        terms = {"steps_per_second": Term(1.0, seconds), "data_wait": Term(waited, seconds)}
        if report.signal_seconds:
            signal = report.signal_seconds * size  # the mean over ranks is taken later
            terms["signal_seconds_per_second"] = Term(signal, seconds)
        self._state.meter.add(terms)

    def _record_skipped(self, skip: Skip) -> None:
        state = self._state
        dumps = self._dump(skip) if skip.cause == "not finite" else []
        details = {"reason": skip.reason, "ids": list(skip.ids), "files": dumps}
        self._logbook.event(state.step, "skipped", **details)
        some = ", ".join(skip.ids[:5]) + (" ..." if len(skip.ids) > 5 else "")
        what = f"step {state.step} skipped: {skip.reason} ({len(skip.ids)} items: {some})"
        what += f", kept in {', '.join(dumps)}" if dumps else ""
        self._progress.note(what)
        _check_limits(state, what)

    def _dump(self, skip: Skip) -> list[str]:
        """Writes the suspects of each rank; names of all files. All ranks call it together."""
        state, world = self._state, self._state.run.world
        bad = BadStep(state.step, state.epoch, world.rank, skip.reason)
        directory = state.run.directory / "bad"
        path = None
        try:
            path = dump(bad, skip.suspects, directory, state.config.keep_bad)
        except OSError as error:  # the next checkpoint decides whether the run can go on
            self._progress.note(f"cannot keep the batch in {directory}: {error.strerror or error}")
        names = gather(f"{directory.name}/{path.name}" if path else "", world)
        return [name for name in names if name]

    def _log(self, report: StepReport) -> None:
        state = self._state
        scalars: dict[str, Any] = {
            **state.meter.take(state.run.world),
            "learning_rate": report.learning_rate,
            "clipped_fraction": state.optimizer.clipped_fraction,
            "skipped_steps": state.bad_steps,
            "out_of_memory_steps": state.oom_steps,
            "epoch": state.epoch,
        }
        if state.config.dtype == "float16":
            scalars["loss_scale"] = state.loss_scale.value
        self._logbook.point(state.step, {f"train/{n}": value for n, value in scalars.items()})


def _check_limits(state: TrainState, last: str) -> None:
    config = state.config
    if state.bad_steps > config.max_bad_steps:
        raise NonFiniteError(
            f"{state.bad_steps} steps of epoch {state.epoch} had a loss or gradient that is "
            f"not finite, but `max_bad_steps` is {config.max_bad_steps}; last: {last}"
        )
    if state.oom_steps > config.max_oom_steps:
        raise OutOfMemoryError(
            f"{state.oom_steps} steps of epoch {state.epoch} had a batch that did not fit into "
            f"memory, but `max_oom_steps` is {config.max_oom_steps}: make batches smaller (first "
            f"remove epoch-{state.epoch}-step-*.pt: other batches begin with an epoch), or use "
            f"more memory; last: {last}"
        )
