"""A running average of the weights during training, from which `core.weights` makes means.

A snapshot is taken every `period` steps, and A_k, the mean of the first k snapshots, is kept in
float64.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dualasr_lib.core.checkpoint import Checkpoint

__all__ = ["RunningAverage"]


class RunningAverage:
    """float64 mean of a model's floating-point weights and buffers over its snapshots."""

    def __init__(self, period: int) -> None:
        if period < 1:
            raise ValueError(f"`average_period` must be at least 1, but is {period}")
        self._period = period
        self.count = 0
        self.mean: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Takes a snapshot if `step` (counted from 1) is a multiple of the period."""
        if step % self._period:
            return
        self.count += 1
        for name, value in _floating(model.state_dict()).items():
            if name not in self.mean:
                self.mean[name] = torch.zeros_like(value, dtype=torch.float64)
            mean = self.mean[name]
            mean += (value.double() - mean) / self.count

    def load(self, checkpoint: Checkpoint, device: torch.device) -> None:
        """Goes on from the average of `checkpoint`."""
        self.count = checkpoint.average_count
        self.mean = {name: mean.to(device) for name, mean in checkpoint.average.items()}


def _floating(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if value.is_floating_point()}
