"""What a program gives to `fit` and what it gets back: protocols, results and settings.

The loop knows batches only by name (`ids`) and by `to(device)`, and losses only as numbers, so
nothing here speaks of speech.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from dualasr_lib.training.distributed import World
from dualasr_lib.training.optim import OptimConfig
from dualasr_lib.training.schedule import ScheduleConfig

__all__ = [
    "Batch",
    "Batches",
    "Cause",
    "FitConfig",
    "FitResult",
    "NonFiniteError",
    "Objective",
    "OutOfMemoryError",
    "Run",
    "StepResult",
    "Term",
    "Validate",
    "Validation",
]


@dataclass(frozen=True)
class Term:
    """One logged quantity of one batch; the log shows sum(sums) / sum(counts)."""

    sum: Tensor | float
    """Total over `count` items: a scalar tensor on any device, or a number."""
    count: float
    """Frames, tokens, utterances ... that `sum` was taken over."""


class StepResult(NamedTuple):
    """What the objective says about one batch."""

    loss: Tensor
    """() what to differentiate: the mean over `weight` items."""
    terms: Mapping[str, Term]
    """Logged as `train/<name>`; `loss` is logged by itself."""
    weight: float = 1.0
    """Items `loss` is the mean of. Micro-batches and ranks are averaged with these weights, so
    that N ranks make the same update as one with the joined batch."""
    signal_seconds: float = 0.0
    """Seconds of signal in the batch, for the throughput; 0 = not given."""


class Validation(NamedTuple):
    """What a validation found."""

    scores: Mapping[str, float]
    """Logged as `valid/<name>`."""
    texts: Mapping[str, str] = MappingProxyType({})
    """Examples to read, logged as `valid/<name>`."""
    images: Mapping[str, Tensor] = MappingProxyType({})
    """Pictures, (H, W) each with values in [0, 1]; in TensorBoard as `valid/<name>`."""


class Batch(Protocol):
    """A batch of training data, as far as the loop looks into it: a NamedTuple."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of its items, for messages."""

    def to(self, device: torch.device, /) -> "Batch":
        """The batch on `device`."""

    def _asdict(self) -> dict[str, Any]:
        """Its fields, plain data and tensors, for a dump."""


class Batches(Protocol):
    """Training batches that can be taken up where they were left.

    A batch must be a function of (seed, epoch, its number), or draw from the global generators of
    python, numpy or torch while it is fetched: the loop seeds those before each fetch.
    """

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch (from 0) of the next pass; called before `load_state_dict` too."""

    def __iter__(self) -> Iterator[Any]:
        """One pass: an epoch, or what is left of it after `load_state_dict`."""

    def state_dict(self) -> dict[str, Any]:
        """Position after the batches handed out so far, as plain data and tensors."""

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Makes the next pass start from that position."""


Objective = Callable[[nn.Module, Any], StepResult]
"""(model, batch) -> StepResult. Before it exchanges anything with other ranks, forward or backward,
it must call `ranks.meet`: one that runs out of memory here would leave the others waiting."""

Validate = Callable[[nn.Module], Validation]
"""Gets the bare model in evaluation mode, without gradients, in the main process only."""


Cause = Literal["memory", "not finite", "loss scale"]
"""Why a step made no update. `loss scale`: that of float16 was too large and has been lowered, so
nothing is wrong."""


class NonFiniteError(ValueError):
    """Too many steps had a loss or gradient that was not finite; names the last batch."""


class OutOfMemoryError(ValueError):
    """Too many batches did not fit into memory; names the last one."""


class FitResult(NamedTuple):
    """How a call of `fit` ended."""

    step: int
    """Optimiser steps done in all."""
    epoch: int
    """Epochs finished."""
    finished: bool
    """False: stopped by SIGTERM or SIGINT, with everything saved."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where a training run lives, and what its checkpoints say about it."""

    directory: Path
    """Checkpoints, `log.jsonl`, `tensorboard/` and `bad/` are written here."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The whole configuration as plain values; stored in each checkpoint."""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """Hashes of what the model cannot be used without; a resume with others is refused."""
    world: World = field(default_factory=World)
    """This process among its fellows."""


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Settings of `fit`."""

    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Learning rate."""
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
