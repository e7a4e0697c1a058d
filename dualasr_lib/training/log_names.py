"""What the names in the log of a run say."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

__all__ = ["DESCRIPTIONS", "description"]

DESCRIPTIONS = {
    "train/loss": "What is minimised: mean over the steps since the last point.",
    "train/steps_per_second": "Optimiser steps per second of wall time.",
    "train/data_wait": "Share of the time in which a step waited for its batches, 0 to 1.",
    "train/signal_seconds_per_second": "Seconds of signal trained on per second of wall time, all "
    "processes together.",
    "train/grad_norm": "Norm of the gradient before clipping, as the optimiser measures it.",
    "train/learning_rate": "Learning rate of this step.",
    "train/clipped_fraction": "Share of recent steps whose gradient was clipped, 0 to 1.",
    "train/skipped_steps": "Steps of this epoch left out: loss or gradient was not finite.",
    "train/out_of_memory_steps": "Steps of this epoch left out: the batch did not fit into memory.",
    "train/epoch": "Epochs finished.",
    "train/loss_scale": "Factor on the loss that keeps float16 gradients from vanishing.",
}
"""What the loop itself logs -> what it says."""


def description(name: str, table: Mapping[str, str]) -> str:
    """What `name` says by a table of names and patterns ("train/ctc_*"), the first that fits;
    empty if none does.
    """
    return next((text for pattern, text in table.items() if fnmatchcase(name, pattern)), "")
