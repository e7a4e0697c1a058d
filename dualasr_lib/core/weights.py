"""Weights to recognise with, from checkpoints: plain ones, or exact means over spans of steps.

Training keeps A_k, the mean of the first k snapshots of the weights (`training.averaging`). The
mean over the snapshots between two checkpoints needs only these two:

    mean(k1, k2] = (A_k2 * k2 - A_k1 * k1) / (k2 - k1)

so "epochs 11 to 20" costs two files, not ten, and averages every snapshot between.
"""

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from dualasr_lib.core.checkpoint import Checkpoint, file_name, find, load
from dualasr_lib.core.files import AnyPath

__all__ = ["Weights", "average_between", "load_weights"]


class Weights(NamedTuple):
    """Weights to decode or export with."""

    state_dict: dict[str, Tensor]
    config: dict[str, Any]
    fingerprints: dict[str, str]
    source: str
    """Where they come from, for a report: `epoch-20.pt, mean over steps (1000, 2000], since
    epoch-10.pt`."""
    label: str = ""
    """Of a mean, for the name of results: `avg10`, or `avg10-step2040` of mid-epoch."""


def load_weights(directory: AnyPath, epoch: int | None = None, avg: int = 0) -> Weights:
    """Weights of the end of `epoch`, or their mean over `avg` epochs.

    Args:
        epoch: None is the newest checkpoint, be it of the end of an epoch or of mid-epoch.
        avg: 0 gives the plain weights; K the mean over the last K whole epochs up to there, and,
            if it is of mid-epoch, the steps after them. In mid of the first epoch, 1 takes all.

    Raises:
        CheckpointError: a file is missing or damaged.
        ValueError: `avg` is negative or reaches before the first epoch, or no snapshot lies there.
    """
    directory = Path(directory)
    path = find(directory, epoch)
    end = load(path)
    if avg == 0:
        return Weights(end.model, end.config, end.fingerprints, path.name)
    most = max(1, end.epoch)
    if not 0 < avg <= most:
        raise ValueError(
            f"`avg` must lie in 0..{most}, as {path.name} has {end.epoch} whole epochs behind it, "
            f"but is {avg}"
        )
    first = max(0, end.epoch - avg)
    start = load(directory / file_name(first)) if first else None
    since = file_name(first) if first else "the start"
    steps = f"({start.step if start else 0}, {end.step}]"
    source = f"{path.name}, mean over steps {steps}, since {since}"
    between = path.name != file_name(end.epoch)
    label = f"avg{avg}-step{end.step}" if between else f"avg{avg}"
    return Weights(average_between(end, start), end.config, end.fingerprints, source, label)


def average_between(end: Checkpoint, start: Checkpoint | None = None) -> dict[str, Tensor]:
    """Mean weights over the snapshots after `start` (None: all) up to `end`, as a state dict.

    Integer buffers are those of `end`.

    Raises:
        ValueError: no snapshot was taken between the two.
    """
    before = start.average_count if start else 0
    if end.average_count <= before:
        raise ValueError(
            f"an average needs a snapshot between its checkpoints, but step {end.step} and step "
            f"{start.step if start else 0} have none: choose a smaller `average_period`"
        )
    state = dict(end.model)
    for name, mean in end.average.items():
        total = mean * end.average_count
        if start is not None and before:
            total = total - start.average[name] * before
        state[name] = (total / (end.average_count - before)).to(end.model[name].dtype)
    return state
