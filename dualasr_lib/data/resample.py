"""Running audio from one sample rate to another, by soxr."""

from typing import Any

import numpy as np

__all__ = ["Resampler"]

_LOWEST, _HIGHEST = 1000, 768_000
"""Hz; whoever says 16 means kHz."""


class Resampler:
    """One stream of mono samples; what it gives does not depend on the pieces it is pushed in.

    Raises:
        ValueError: a rate that is no whole number of Hz, or that no recording has.
    """

    def __init__(self, from_rate: float, to_rate: float) -> None:
        for rate in (from_rate, to_rate):
            is_number = isinstance(rate, (int, float)) or hasattr(rate, "__index__")
            if not (is_number and _LOWEST <= rate <= _HIGHEST and rate == int(rate)):
                raise ValueError(
                    f"a sample rate must be a whole number of Hz from {_LOWEST} to {_HIGHEST}, "
                    f"but is {rate!r}"
                )
        self._stream: Any = None
        if from_rate != to_rate:
            import soxr  # only where a rate has to be changed

            self._stream = soxr.ResampleStream(
                int(from_rate), int(to_rate), num_channels=1, dtype="float32"
            )

    def push(self, samples: Any) -> Any:
        """(n,) float32 array -> (m,) that can be given by now."""
        return samples if self._stream is None else self._stream.resample_chunk(samples)

    def finish(self) -> Any:
        """(m,) what was held back."""
        nothing = np.zeros(0, np.float32)
        return nothing if self._stream is None else self._stream.resample_chunk(nothing, last=True)
