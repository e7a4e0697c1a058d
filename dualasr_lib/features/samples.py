"""What extractors take: float32 tensors in [-1, 1]. They convert nothing; the rest is one line."""

from typing import Any

import torch
from torch import Tensor

from dualasr_lib.core.levels import LOUDEST

__all__ = ["check_samples"]

_REMEDY = "(float32 in [-1, 1]; samples of 16 bits are to be divided by 32768)"


def check_samples(samples: Any, dims: int, shape: str) -> None:
    """Looks at what an extractor is given; NaN is the caller's business.

    Args:
        shape: what it must be, for messages: "(n,)".

    Raises:
        ValueError: no float32 tensor of that many dimensions, or samples far beyond full scale.
    """
    if not isinstance(samples, Tensor):
        given = getattr(samples, "dtype", None)
        kind = type(samples).__name__ + ("" if given is None else f" of {given}")
        raise ValueError(f"`samples` must be a tensor of shape {shape} {_REMEDY}, but is {kind}")
    if samples.dim() != dims or samples.dtype != torch.float32:
        raise ValueError(
            f"`samples` must be float32 of shape {shape}, but is {samples.dtype} of "
            f"{tuple(samples.shape)} {_REMEDY}"
        )
    if bool((samples.abs() > LOUDEST).any()):
        loudest = float(samples.abs().nan_to_num(0.0).max())
        raise ValueError(f"`samples` must be in [-1, 1], but reach {loudest:g} {_REMEDY}")
