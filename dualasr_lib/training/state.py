"""Everything a run must remember, and how it goes to a checkpoint and back."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from dualasr_lib.core import checkpoint as checkpoints
from dualasr_lib.core.checkpoint import Checkpoint, CheckpointError
from dualasr_lib.core.config import flatten
from dualasr_lib.training.averaging import RunningAverage
from dualasr_lib.training.contract import Batches, Cause, Run
from dualasr_lib.training.distributed import gather
from dualasr_lib.training.feed import Feed
from dualasr_lib.training.fit_config import FitConfig
from dualasr_lib.training.freezing import Frozen
from dualasr_lib.training.meter import Meter
from dualasr_lib.training.optim import build_optimizer
from dualasr_lib.training.precision import LossScale
from dualasr_lib.training.schedule import learning_rate

__all__ = ["TrainState"]

_COUNTERS = ("steps_in_epoch", "bad_steps", "oom_steps", "steps_per_epoch", "validation_due")


class TrainState:
    """The state of a run: weights, optimiser, averages, position in the data, counters."""

    def __init__(self, model: nn.Module, batches: Batches, run: Run, config: FitConfig) -> None:
        self.model, self.run, self.config = model, run, config
        self.device = next(model.parameters()).device
        self.frozen = Frozen(model, config.freeze)
        self.optimizer = build_optimizer(model, config.optim)
        self.average = RunningAverage(config.average_period)
        self.loss_scale = LossScale(config.dtype)
        self.meter = Meter()
        self.feed = Feed(batches, config.accumulate, config.seed, run.world, self.device)
        self.step = 0
        self.epoch = 0
        self.steps_in_epoch = 0
        self.bad_steps = 0  # in this epoch, skipped for something that was not finite
        self.oom_steps = 0  # in this epoch, skipped for want of memory
        self.validation_due = False
        self.log_lines = 0
        self.steps_per_epoch = 0  # of the last whole epoch; 0 before
        self._saved: str | None = None

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return learning_rate(self.step, self.epoch, self.config.schedule, self.config.max_steps)

    @property
    def finished(self) -> bool:
        """Whether `num_epochs` or `max_steps` is reached."""
        config = self.config
        return (0 < config.num_epochs <= self.epoch) or (0 < config.max_steps <= self.step)

    @property
    def total_steps(self) -> int:
        """Steps of the whole run; 0 while that cannot be known (no `max_steps`, first epoch)."""
        by_epochs = self.config.num_epochs * self.steps_per_epoch
        return min((n for n in (by_epochs, self.config.max_steps) if n), default=0)

    @property
    def validation_turn(self) -> int:
        """Which validation of the run is due, from 1."""
        every = self.config.validate_every
        return -(-self.step // every) if every else self.epoch + (self.steps_in_epoch > 0)

    def end_step(self, skipped: Cause | None = None) -> None:
        """Counts a step, taken or skipped."""
        self.step += 1
        self.steps_in_epoch += 1
        self.bad_steps += skipped == "not finite"
        self.oom_steps += skipped == "memory"
        if self.run.world.is_main:  # which alone saves it
            self.average.update(self.model, self.step)
        every = self.config.validate_every
        self.validation_due = self.finished or bool(every and self.step % every == 0)

    def end_epoch(self) -> None:
        """Counts an epoch and begins the next.

        Raises:
            ValueError: the epoch had no batch.
        """
        if self.steps_in_epoch == 0:
            raise ValueError(f"an epoch needs at least one batch, but epoch {self.epoch} has none")
        self.steps_per_epoch = self.steps_in_epoch
        self.epoch += 1
        self.steps_in_epoch = self.bad_steps = self.oom_steps = 0
        self.validation_due = self.finished or self.config.validate_every == 0
        self.feed.start(self.epoch)

    def resume(self) -> Path | None:
        """Goes on from the newest checkpoint of the run and returns it, or starts afresh.

        All ranks call it together.

        Raises:
            CheckpointError: it is damaged, or belongs to another model.
            ValueError: its fingerprints differ from those of this run, or other ranks found
                another one.
        """
        path = self._resume()
        found = (self.step, self.epoch, path.name if path else "no checkpoint")
        _check_ranks(self.run.directory, gather(found, self.run.world))
        return path

    def _resume(self) -> Path | None:
        path = checkpoints.newest(self.run.directory)
        if path is None:
            self._begin(None)
            self.feed.start(0)
            return None
        checkpoint = checkpoints.load(path)
        _check_fingerprints(path, checkpoint.fingerprints, self.run.fingerprints)
        _check_frozen(path, checkpoint.training.get("freeze", []), self.config.freeze)
        self._begin(checkpoint.config)
        try:
            self.model.load_state_dict(checkpoint.model)
            self._restore(checkpoint)
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"checkpoint {path} does not fit this model; go on with the configuration and the "
                f"version of this library that wrote it, or train in another folder: {error}"
            ) from error
        self._saved = path.name
        if self.run.world.is_main:
            _tell_changes(path, checkpoint.config, self.run.config)
        return path

    def _begin(self, saved: Mapping[str, Any] | None) -> None:
        if self.run.begin is not None:
            self.run = replace(self.run, config=self.run.begin(self.model, saved))

    def save(self, log_lines: int) -> None:
        """Writes a checkpoint unless the newest one is of this moment; all ranks call it together.

        Args:
            log_lines: lines of the log so far; a resumed run cuts off what came later.

        Raises:
            CheckpointError: it cannot be written (disk full).
        """
        between = self.step if self.steps_in_epoch else None
        name = checkpoints.file_name(self.epoch, between)
        if name == self._saved:
            return
        positions = None if between is None else self.feed.positions()
        meters = gather(self.meter.state_dict(), self.run.world)
        if self.run.world.is_main:
            training = self._training(positions, meters, log_lines)
            checkpoints.save(self._checkpoint(training), self.run.directory / name)
            config = self.config
            checkpoints.prune(self.run.directory, config.keep_last, config.keep_epochs)
        self._saved = name

    def _checkpoint(self, training: dict[str, Any]) -> Checkpoint:
        return Checkpoint(
            step=self.step,
            epoch=self.epoch,
            model=self.model.state_dict(),
            average=self.average.mean,
            average_count=self.average.count,
            config=dict(self.run.config),
            fingerprints=dict(self.run.fingerprints),
            training=training,
        )

    def _training(self, positions: Any, meters: list[Any], log_lines: int) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(),
            "loss_scale": self.loss_scale.state_dict(),
            "positions": positions,
            "meters": meters,
            "log_lines": log_lines,
            "freeze": list(self.frozen.prefixes),
            **{name: getattr(self, name) for name in _COUNTERS},
        }

    def _restore(self, checkpoint: Checkpoint) -> None:
        training = checkpoint.training
        self.step, self.epoch = checkpoint.step, checkpoint.epoch
        if self.run.world.is_main:
            self.average.load(checkpoint, self.device)
        self.optimizer.load_state_dict(training["optimizer"])
        self.loss_scale.load_state_dict(training["loss_scale"])
        for name in _COUNTERS:
            setattr(self, name, training[name])
        self.log_lines = training["log_lines"]
        rank, meters = self.run.world.rank, training["meters"]
        self.meter.load_state_dict(meters[rank] if rank < len(meters) else {})
        positions = training["positions"]
        self.feed.start(self.epoch, positions)
        if positions is not None and self.run.world.is_main:
            _tell_redealt(len(positions), self.run.world.size, self.epoch)


def _check_fingerprints(path: Path, saved: Mapping[str, str], own: Mapping[str, str]) -> None:
    for name in sorted(saved.keys() | own.keys()):
        if saved.get(name) != own.get(name):
            raise ValueError(
                f"checkpoint {path} must have the {name} of this run ({own.get(name)}), "
                f"but was made with {saved.get(name)}"
            )


def _check_frozen(path: Path, saved: Sequence[str], own: Sequence[str]) -> None:
    """What was frozen has no state of the optimiser, and what was trained has one."""
    if sorted(saved) != sorted(own):
        raise ValueError(
            f"`training.freeze` of a run cannot change, but is {list(own)} and was {list(saved)} "
            f"in checkpoint {path}: begin a new run with that one's weights (--init-from)"
        )


def _check_ranks(directory: Path, found: Sequence[tuple[int, int, str]]) -> None:
    """Ranks at different steps would wait for each other for ever."""
    if len(set(found)) > 1:
        each = "; ".join(
            f"rank {rank}: {name} (step {step}, epoch {epoch})"
            for rank, (step, epoch, name) in enumerate(found)
        )
        raise ValueError(
            f"all ranks must see the same checkpoint folder, but in {directory} they found {each}: "
            "put it on storage that all machines share"
        )


def _tell_redealt(before: int, now: int, epoch: int) -> None:
    if before != now:
        print(
            f"saved by a run of {before} processes, going on with {now}: they share out the batches"
            f" that are left of epoch {epoch}, in the same order, each once (the last round is "
            "filled up); updates are larger or smaller than before by the number of processes",
            file=sys.stderr,
        )


def _tell_changes(path: Path, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    before, now = flatten(saved), flatten(own)
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            change = f"{name} was {before.get(name)!r} and is now {now.get(name)!r}"
            print(f"{path.name}: config {change}", file=sys.stderr)
