"""Settings of a training run, apart from the loop: whoever reads a checkpoint reads them, too."""

from dataclasses import dataclass, field
from typing import Literal

from dualasr_lib.training.optim import OptimConfig
from dualasr_lib.training.schedule import ScheduleConfig

__all__ = ["FitConfig"]


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

    def __post_init__(self) -> None:
        if self.num_epochs <= 0 and self.max_steps <= 0:
            raise ValueError("`num_epochs` or `max_steps` must be set, but both are 0")
        if self.schedule.decay_fraction and not self.max_steps:
            raise ValueError("`schedule.decay_fraction` needs `max_steps`, but it is 0")
        for name in ("accumulate", "log_every", "keep_last", "average_period"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, but is {getattr(self, name)}")
        counts = ("validate_every", "save_every", "keep_epochs", "max_bad_steps", "keep_bad")
        for name in (*counts, "max_oom_steps", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, but is {getattr(self, name)}")
