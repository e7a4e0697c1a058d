"""Weights to recognise with, from checkpoints: plain ones, or exact means over spans of epochs.

Training keeps A_k, the mean of the first k snapshots of the weights (`training.averaging`). The
mean over the snapshots between two checkpoints needs only these two:

    mean(k1, k2] = (A_k2 * k2 - A_k1 * k1) / (k2 - k1)

so "epochs 11 to 20" costs two files, not ten, and averages every snapshot between.
"""

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from dualasr_lib.core.checkpoint import Checkpoint, file_name, find, find_end, load

__all__ = ["Weights", "average_between", "load_weights"]


class Weights(NamedTuple):
    """Weights to decode or export with."""

    state_dict: dict[str, Tensor]
    config: dict[str, Any]
    fingerprints: dict[str, str]
    source: str
    """Where they come from, for a report: `epoch-20.pt, mean over epochs (10, 20]`."""


def load_weights(directory: Path, epoch: int | None = None, avg: int = 0) -> Weights:
    """Weights of the end of `epoch`, or their mean over `avg` epochs.

    Args:
        epoch: None is the newest checkpoint; for a mean, the newest one of the end of an epoch.
        avg: 0 gives the plain weights; K the mean over epochs (epoch - K, epoch].

    Raises:
        CheckpointError: a file is missing or damaged.
        ValueError: `avg` is negative or reaches before the first epoch, or no snapshot lies there.
    """
    path = find_end(directory) if avg and epoch is None else find(directory, epoch)
    end = load(path)
    if avg == 0:
        return Weights(end.model, end.config, end.fingerprints, path.name)
    if not 0 < avg <= end.epoch:
        raise ValueError(
            f"`avg` must lie in 0..{end.epoch}, the epochs finished in {path.name}, but is {avg}"
        )
    first = end.epoch - avg
    start = load(directory / file_name(first)) if first else None
    source = f"{path.name}, mean over epochs ({first}, {end.epoch}]"
    return Weights(average_between(end, start), end.config, end.fingerprints, source)


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
