"""Blocks of samples as callers have them, made what the loops read: (n,) float32 in [-1, 1].

Torch tensors and numpy arrays alike; integers of 16 bits are scaled. What cannot be meant is
refused in one line: other integers, samples of 16 bits that somebody cast to float, NaN. Left out:
sample rates, which a block does not know.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from dualasr_lib.core.arrays import as_numpy, is_array
from dualasr_lib.core.levels import CANCELLED, LOUDEST

__all__ = ["as_mono", "as_samples", "channels_cancel"]

_MOST_CHANNELS = 8


def as_samples(
    block: Any, start_seconds: float = 0.0, sample_rate: int = 16000
) -> npt.NDArray[np.float32]:
    """(n,) float32; may share the memory of `block`.

    Args:
        block: (n,) tensor or array, n >= 0: floating point in [-1, 1], or int16.
        start_seconds: where it lies in its stream, for messages.

    Raises:
        ValueError: anything else, or samples that are NaN, infinite or far beyond full scale.
    """
    array = _array(block)
    scale = np.float32(32768 if array.dtype == np.int16 else 1)
    if array.ndim != 1 or not (array.dtype.kind == "f" or scale > 1):
        raise ValueError(
            "a block of audio must be (n,) floating point samples in [-1, 1], or int16, but is "
            f"{array.shape} {array.dtype}"
        )
    samples = array.astype(np.float32, copy=False) / scale
    (bad,) = (~(np.abs(samples) <= LOUDEST)).nonzero()
    if len(bad):
        value = float(samples[bad[0]])
        seconds = start_seconds + int(bad[0]) / sample_rate
        if np.isfinite(value):
            raise ValueError(
                f"samples must be in [-1, 1], but there is {value:g} at {seconds:.3f} s: divide "
                "samples of 16 bits by 32768, or leave them int16"
            )
        raise ValueError(
            f"samples must be finite numbers, but there is NaN or infinity at {seconds:.3f} s"
        )
    return samples


def as_mono(
    block: Any, start_seconds: float = 0.0, sample_rate: int = 16000
) -> npt.NDArray[np.float32]:
    """As `as_samples`, also of (channels, n), whose mean is taken.

    Raises:
        ValueError: as `as_samples`, or (n, channels).
    """
    array = _array(block)
    if array.ndim != 2:
        return as_samples(array, start_seconds, sample_rate)
    if not 0 < len(array) <= _MOST_CHANNELS:
        raise ValueError(
            f"audio must be (samples,) or (channels, samples) with at most {_MOST_CHANNELS} "
            f"channels, but is {array.shape}: transpose it, or choose channels"
        )
    rows = [as_samples(row, start_seconds, sample_rate) for row in array]
    mean: npt.NDArray[np.float32] = np.stack(rows).mean(axis=0)
    return mean


def channels_cancel(block: Any) -> bool:
    """Whether hardly anything is left of the channels of a block, (channels, n), in their mean."""
    array = _array(block)
    if array.ndim != 2 or not array.size:
        return False
    channels = array.astype(np.float64)
    left = float(np.square(channels.mean(axis=0)).mean())
    return left * len(channels) < CANCELLED * float(np.square(channels).mean())


def _array(block: Any) -> npt.NDArray[Any]:
    if is_array(block) and not isinstance(block, np.ndarray):
        return as_numpy(block)
    if isinstance(block, np.ndarray) and block.dtype.kind in "fi":
        return np.asarray(block, dtype=block.dtype.newbyteorder("="))
    kind = f"{block.dtype} array" if isinstance(block, np.ndarray) else type(block).__name__
    raise ValueError(
        "a block of audio must be a torch tensor or a numpy array of (n,) float samples in "
        f"[-1, 1], or of int16, but is {kind}{_remedy(block)}"
    )


def _remedy(block: Any) -> str:
    if isinstance(block, (bytes, bytearray, memoryview)):
        return ": numpy.frombuffer(block, '<i2') reads samples of 16 bits"
    return ": numpy.asarray makes an array of it" if isinstance(block, (list, tuple)) else ""
