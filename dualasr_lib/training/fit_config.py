"""Settings of a training run, apart from the loop: whoever reads a checkpoint reads them, too."""

from dataclasses import dataclass, field
from typing import Literal

from dualasr_lib.training.optim import OptimConfig
from dualasr_lib.training.schedule import ScheduleConfig

__all__ = ["FitConfig", "InitialConfig"]


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Settings of `fit`."""

    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Learning rate."""
    freeze: tuple[str, ...] = ()
    """Names of parameters, or of parts of the model, that are not trained, as checkpoints have
    them: `["encoders.streaming"]`. What is frozen as a whole acts as in recognition, its training
    aids too."""
    seed: int = 0
    """All randomness of a run follows from it."""
    num_epochs: int = 0
    """Passes over the data; 0 = no limit."""
    max_steps: int = 0
    """Optimiser steps; 0 = no limit. One of the two must be set; the first reached ends the run."""
    accumulate: int = 1
    """Batches per optimiser step."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Autocast type; float16 adds loss scaling and needs a GPU."""
    log_every: int = 20
    """Steps between two points of the log."""
    validate_every: int = 0
    """Steps between validations; 0 = at the end of each epoch. There is one at the very end too."""
    save_every: int = 500
    """Steps between checkpoints in mid-epoch; 0 = only at the end of each epoch."""
    keep_last: int = 2
    """Mid-epoch checkpoints to keep; two, so that a damaged one has a predecessor."""
    keep_epochs: int = 0
    """Epoch checkpoints to keep; 0 = all. Averaging over K epochs needs the K + 1 newest."""
    average_period: int = 100
    """Steps between two snapshots for the running average of weights."""
    max_bad_steps: int = 10
    """Steps per epoch that may be skipped for a loss or gradient that is not finite."""
    keep_bad: int = 10
    """Such steps whose batches are kept as files in `bad/`, the newest ones of each process."""
    max_oom_steps: int = 10
    """Steps per epoch that may be skipped because a batch of theirs did not fit into memory."""
    patience: float = 600.0
    """Seconds that a process waits for the others of its run: longer than the slowest batch, a
    share of a validation and the writing of a checkpoint. Then it ends."""

    def __post_init__(self) -> None:
        if self.num_epochs <= 0 and self.max_steps <= 0:
            raise ValueError("`num_epochs` or `max_steps` must be above 0, but none is")
        if self.schedule.decay_fraction and not self.max_steps:
            raise ValueError("`schedule.decay_fraction` needs `max_steps`, but it is 0")
        if not self.patience > 0.0:
            raise ValueError(f"`patience` must be above 0, but is {self.patience}")
        for name in ("accumulate", "log_every", "keep_last", "average_period"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, but is {getattr(self, name)}")
        counts = ("validate_every", "save_every", "keep_epochs", "max_bad_steps", "keep_bad")
        for name in (*counts, "max_oom_steps", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, but is {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class InitialConfig:
    """What a run begins with, and how far its warm-up is over then."""

    path: str = ""
    """A bundle or a checkpoint whose weights are taken where they fit; empty: all are drawn.
    `train.py --init-from` sets it. A run that goes on from its own checkpoint does not read it;
    there it is the file's name alone."""
    hash: str = ""
    """Of that file (the first 12 digits of its sha256). The run fills it in; if it is given, it
    must be the file's."""
    anew: tuple[str, ...] = ()
    """Names of parts that are drawn although they would fit. The run adds those that did not."""
    warm_up_done: float = 1.0
    """How much of `model.warm_up` counts as over for what is taken: 1 keeps the training aids as
    gentle as they are at the end of a warm-up, 0 begins as with random weights. What starts anew,
    and distillation if anything does, begins with its warm-up in any case; so does the learning
    rate (`training.schedule`), as the optimiser is a new one."""

    def __post_init__(self) -> None:
        if not self.warm_up_done >= 0.0:
            raise ValueError(f"`warm_up_done` must be 0 or more, but is {self.warm_up_done}")
        if self.hash and not self.path:
            raise ValueError(f"`hash` is that of the file `path`, but is {self.hash!r} without one")
