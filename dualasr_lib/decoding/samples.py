"""Blocks of samples as callers have them, made what the loops read: (n,) float32 in [-1, 1].

Torch tensors and numpy arrays alike; integers of 16 bits are scaled. What cannot be meant is
refused in one line: other integers, samples of 16 bits that somebody cast to float, NaN. Left out:
sample rates, which a block does not know.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dualasr_lib.core.levels import CANCELLED, LOUDEST

__all__ = ["as_mono", "as_samples", "channels_cancel"]

_MOST_CHANNELS = 8


def as_samples(block: Any, start_seconds: float = 0.0, sample_rate: int = 16000) -> Tensor:
    """(n,) float32 on the CPU; may share the memory of `block`.

    Args:
        block: (n,) tensor or array, n >= 0: floating point in [-1, 1], or int16.
        start_seconds: where it lies in its stream, for messages.

    Raises:
        ValueError: anything else, or samples that are NaN, infinite or far beyond full scale.
    """
    tensor = _tensor(block)
    scale = 32768.0 if tensor.dtype == torch.int16 else 1.0
    if tensor.dim() != 1 or not (tensor.is_floating_point() or scale > 1):
        raise ValueError(
            "a block of audio must be (n,) floating point samples in [-1, 1], or int16, but is "
            f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
        )
    samples = tensor.detach().to("cpu", torch.float32) / scale
    bad = (~(samples.abs() <= LOUDEST)).nonzero()
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


def as_mono(block: Any, start_seconds: float = 0.0, sample_rate: int = 16000) -> Tensor:
    """As `as_samples`, also of (channels, n), whose mean is taken.

    Raises:
        ValueError: as `as_samples`, or (n, channels).
    """
    tensor = _tensor(block)
    if tensor.dim() != 2:
        return as_samples(tensor, start_seconds, sample_rate)
    if not 0 < len(tensor) <= _MOST_CHANNELS:
        raise ValueError(
            f"audio must be (samples,) or (channels, samples) with at most {_MOST_CHANNELS} "
            f"channels, but is {tuple(tensor.shape)}: transpose it, or choose channels"
        )
    rows = [as_samples(row, start_seconds, sample_rate) for row in tensor]
    return torch.stack(rows).mean(dim=0)


def channels_cancel(block: Any) -> bool:
    """Whether hardly anything is left of the channels of a block, (channels, n), in their mean."""
    tensor = _tensor(block)
    if tensor.dim() != 2 or not tensor.numel():
        return False
    channels = tensor.detach().to("cpu", torch.float64)
    left = float(channels.mean(dim=0).square().mean())
    return left * len(channels) < CANCELLED * float(channels.square().mean())


def _tensor(block: Any) -> Tensor:
    if isinstance(block, Tensor):
        return block
    if isinstance(block, np.ndarray) and block.dtype.kind in "fi":
        native = np.asarray(block, dtype=block.dtype.newbyteorder("="), order="C")
        if native.dtype.itemsize > 8:  # long double
            native = native.astype(np.float64)
        return torch.from_numpy(native if native.flags.writeable else native.copy())
    kind = f"{block.dtype} array" if isinstance(block, np.ndarray) else type(block).__name__
    raise ValueError(
        "a block of audio must be a torch tensor or a numpy array of (n,) float samples in "
        f"[-1, 1], or of int16, but is {kind}{_remedy(block)}"
    )


def _remedy(block: Any) -> str:
    if isinstance(block, (bytes, bytearray, memoryview)):
        return ": numpy.frombuffer(block, '<i2') reads samples of 16 bits"
    return ": numpy.asarray makes an array of it" if isinstance(block, (list, tuple)) else ""
