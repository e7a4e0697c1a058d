"""Learning rate as a pure function of steps and epochs: Eden, with an optional decay to zero.

Eden (Zipformer, arXiv 2310.11230): with b = steps done and e = epochs done,

    lr = base * ((b^2 + B^2) / B^2)^-1/4 * ((e^2 + E^2) / E^2)^-1/4 * warmup(b)

falls like 1/sqrt(b) beyond B steps and 1/sqrt(e) beyond E epochs. It never reaches zero, which a
short run needs to settle; `decay_fraction` (ours, off by default) adds that over the last part of
a known number of steps. There is no state: the loop's counters are the arguments.
"""

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["ScheduleConfig", "learning_rate"]


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Settings of `learning_rate`."""

    base_lr: float = 0.045
    """Learning rate after warm-up, before decay (0.045 suits ScaledAdam, 1e-3 AdamW)."""
    lr_batches: float = 7500.0
    """B: steps after which the decay by steps sets in; 0 = no such decay."""
    lr_epochs: float = 3.5
    """E: epochs after which the decay by epochs sets in; 0 = no such decay."""
    warmup_batches: float = 500.0
    """Steps of linear warm-up."""
    warmup_start: float = 0.1
    """Factor at step 0, where warm-up begins."""
    decay_fraction: float = 0.0
    """Last part of all steps over which the rate goes to zero (0 = never). Ours, not Eden's."""
    decay_shape: Literal["linear", "cosine"] = "linear"
    """Form of that last part."""

    def __post_init__(self) -> None:
        if not self.base_lr > 0:
            raise ValueError(f"`base_lr` must be above 0, but is {self.base_lr}")
        if not 0 <= self.decay_fraction <= 1:
            raise ValueError(f"`decay_fraction` must be in [0, 1], but is {self.decay_fraction}")
        if not 0 <= self.warmup_start <= 1:
            raise ValueError(f"`warmup_start` must be in [0, 1], but is {self.warmup_start}")
        if min(self.lr_batches, self.lr_epochs, self.warmup_batches) < 0:
            raise ValueError("`lr_batches`, `lr_epochs`, `warmup_batches` must not be negative")


def learning_rate(step: float, epoch: float, config: ScheduleConfig, total_steps: int = 0) -> float:
    """Learning rate of the step that follows `step` done steps and `epoch` done epochs.

    Args:
        total_steps: steps of the whole run; needed by `decay_fraction` only.

    Raises:
        ValueError: `decay_fraction` is set, but `total_steps` is not.
    """
    rate = config.base_lr * _decay(step, config.lr_batches) * _decay(epoch, config.lr_epochs)
    return rate * _warmup(step, config) * _final_decay(step, config, total_steps)


def _decay(done: float, scale: float) -> float:
    return 1.0 if scale == 0 else ((done**2 + scale**2) / scale**2) ** -0.25


def _warmup(step: float, config: ScheduleConfig) -> float:
    if step >= config.warmup_batches:
        return 1.0
    return config.warmup_start + (1 - config.warmup_start) * step / config.warmup_batches


def _final_decay(step: float, config: ScheduleConfig, total_steps: int) -> float:
    if config.decay_fraction == 0:
        return 1.0
    if total_steps <= 0:
        raise ValueError("`decay_fraction` needs a known number of steps: set `max_steps`")
    left = (total_steps - step) / (config.decay_fraction * total_steps)  # 1 where it begins
    left = min(1.0, max(0.0, left))
    return left if config.decay_shape == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)
