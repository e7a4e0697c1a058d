"""What a program gives to `fit` and what it gets back: protocols and results.

The loop knows batches only by name (`ids`) and by `to(device)`, and losses only as numbers, so
nothing here speaks of speech.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from dualasr_lib.core.files import require_paths
from dualasr_lib.core.picture import Picture
from dualasr_lib.training.distributed import World

__all__ = [
    "ALONE",
    "Batch",
    "Batches",
    "Begin",
    "Cause",
    "FitResult",
    "NonFiniteError",
    "Objective",
    "OutOfMemoryError",
    "Redealable",
    "Run",
    "Share",
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
    images: Mapping[str, Picture] = MappingProxyType({})
    """In TensorBoard as `valid/<name>`."""


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


@runtime_checkable
class Redealable(Protocol):
    """Batches that another number of ranks can go on with inside an epoch."""

    def redeal(self, states: Sequence[Mapping[str, Any]], /) -> None:
        """Makes the next pass start behind what all those ranks had handed out together."""


Objective = Callable[[nn.Module, Any], StepResult]
"""(model, batch) -> StepResult. Before it exchanges anything with other ranks, forward or backward,
it must call `ranks.meet`: one that runs out of memory here would leave the others waiting."""


def _alone(value: Any) -> list[Any]:
    return [value]


class Share(NamedTuple):
    """A rank's part in a validation."""

    rank: int = 0
    size: int = 1
    """Ranks that share it."""
    gather: Callable[[Any], list[Any]] = _alone
    """A plain value, with tensors on the CPU only -> those of all ranks in order. All ranks call it
    once, behind all that takes long: from then on the validation cannot be broken off."""


ALONE = Share()
"""All of a validation."""


Validate = Callable[[nn.Module, int, Share], Validation]
"""(model, turn, share) -> Validation: gets the bare model in evaluation mode, without gradients,
and which validation of the run this is, so that it can show other examples. All ranks call it; what
it gives the main process is logged."""


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
    descriptions: Mapping[str, str] = field(default_factory=dict)
    """Name of a logged value, or a pattern of names ("train/ctc_*") -> what it says."""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """Hashes of what the model cannot be used without; a resume with others is refused."""
    world: World = field(default_factory=World)
    """This process among its fellows."""
    begin: "Begin | None" = None
    """Called once before the first step."""

    def __post_init__(self) -> None:
        require_paths(directory=self.directory)


Begin = Callable[[nn.Module, Mapping[str, Any] | None], Mapping[str, Any]]
"""(model, config in the checkpoint that the run goes on from, None at its start) -> the config for
its checkpoints. At the start it may change the weights; ValueError if config and checkpoint do not
go together."""
