"""Gradient clipping against the running median of gradient norms: no threshold to tune.

A gradient longer than `scale` times the median of the last `window` norms is shortened to that
length (Zipformer, arXiv 2310.11230, and its published optimiser: scale 2, window 100). Optimisers
of the Adam family hardly feel a constant factor, so what it removes is the odd wild batch.
"""

import math
import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = ["ClippingConfig", "MedianClip", "Update"]

_MIN_HISTORY = 10  # norms; with fewer the median says little, and nothing is clipped (our choice)


@dataclass(frozen=True, kw_only=True)
class ClippingConfig:
    """Settings of `MedianClip`."""

    scale: float = 2.0
    """Longest gradient allowed, in medians; 0 switches clipping off."""
    window: int = 100
    """Steps the median (and `clipped_fraction`) looks back on."""

    def __post_init__(self) -> None:
        if self.scale < 0:
            raise ValueError(f"`scale` must be 0 or more, but is {self.scale}")
        if self.window < _MIN_HISTORY:
            raise ValueError(f"`window` must be at least {_MIN_HISTORY}, but is {self.window}")


class Update(NamedTuple):
    """What an optimiser did with a gradient."""

    grad_norm: float
    """Norm before clipping; inf or nan for a bad gradient."""
    clip_factor: float
    """The gradient was multiplied by this; 1.0 = not clipped."""
    applied: bool
    """False: the gradient was not finite and nothing has changed."""


class MedianClip:
    """Remembers the last norms and decides about the next one."""

    def __init__(self, config: ClippingConfig) -> None:
        self._config = config
        self._norms: deque[float] = deque(maxlen=config.window)
        self._clipped: deque[bool] = deque(maxlen=config.window)

    @property
    def clipped_fraction(self) -> float:
        """Fraction of the last `window` updates that were clipped."""
        return sum(self._clipped) / max(1, len(self._clipped))

    def decide(self, norm: float) -> Update:
        """The factor for a gradient of this norm; a finite norm joins the history, unclipped."""
        if not math.isfinite(norm):
            return Update(norm, 0.0, False)
        limit = self._limit()
        factor = limit / norm if norm > limit else 1.0
        self._norms.append(norm)
        self._clipped.append(factor < 1.0)
        return Update(norm, factor, True)

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"norms": list(self._norms), "clipped": list(self._clipped)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        self._norms = deque(state["norms"], maxlen=self._config.window)
        self._clipped = deque(state["clipped"], maxlen=self._config.window)

    def _limit(self) -> float:
        if self._config.scale == 0 or len(self._norms) < _MIN_HISTORY:
            return math.inf
        return self._config.scale * statistics.median(self._norms)
