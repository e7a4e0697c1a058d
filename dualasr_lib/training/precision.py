"""Autocast, and the loss scale that float16 gradients need."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

__all__ = ["LossScale", "autocast"]

_GROWTH_STEPS = 2000  # good steps before the scale is doubled, as in torch's GradScaler
_FLOOR = 2.0**-16  # an overflow at a smaller scale is no matter of scale; see `LossScale`


def autocast(device: torch.device, dtype: str) -> AbstractContextManager[Any]:
    """Context in which the forward pass runs in `dtype` where that is safe.

    Raises:
        ValueError: float16 on a CPU, where torch lacks most operations.
    """
    if dtype == "float16" and device.type == "cpu":
        raise ValueError("dtype float16 needs a GPU, but the model is on the CPU: use bfloat16")
    if dtype == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, dtype))


class LossScale:
    """Factor on the loss that keeps small float16 gradients from vanishing; 1 for other types.

    The loss that is scaled is a sum over tokens, not a mean, so that scales below 1 are sound: a
    batch has up to some 2^13 tokens of a loss of up to some 2^3 each, 2^16 in all.

    Our own few lines instead of torch's GradScaler: that one wants torch's optimisers and a GPU.
    """

    def __init__(self, dtype: str) -> None:
        self._enabled = dtype == "float16"
        self.value = 2.0**15 if self._enabled else 1.0
        self._good_steps = 0

    def adapt(self, finite: bool) -> bool:
        """Grows or shrinks the scale; True if a gradient that is not finite is explained by it."""
        if not self._enabled:
            return False
        self._good_steps = self._good_steps + 1 if finite else 0
        if finite:
            if self._good_steps % _GROWTH_STEPS == 0:
                self.value *= 2
            return False
        self.value /= 2
        return self.value >= _FLOOR

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"value": self.value, "good_steps": self._good_steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        self.value, self._good_steps = state["value"], state["good_steps"]
