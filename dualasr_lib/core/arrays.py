"""The few operations that streams need of arrays, torch's or numpy's alike.

Recognition with torch hands tensors around, the runtime without torch numpy's arrays; what stands
between models and texts asks for no more than this. torch is imported only where a tensor is.
"""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "as_kind", "as_numpy", "copied", "is_array", "joined", "without_gradient"]

Array: TypeAlias = Any
"""A torch tensor or a numpy array."""


def is_array(value: Any) -> bool:
    """Whether it is one of them."""
    return isinstance(value, np.ndarray) or _is_tensor(value)


def as_numpy(array: Array) -> npt.NDArray[Any]:
    """The same numbers; shares memory where it can."""
    found: npt.NDArray[Any] = array.detach().cpu().numpy() if _is_tensor(array) else array
    return found


def as_kind(values: npt.NDArray[Any], like: Array) -> Array:
    """The same numbers as a CPU tensor if `like` is a tensor."""
    if not _is_tensor(like):
        return values
    return sys.modules["torch"].from_numpy(values)


def joined(parts: Sequence[Array]) -> Array:
    """Arrays of one kind, at least one, along their first axis."""
    if _is_tensor(parts[0]):
        return sys.modules["torch"].cat(list(parts))
    return np.concatenate(parts)


def copied(array: Array) -> Array:
    """An array with memory of its own."""
    return array.clone() if _is_tensor(array) else array.copy()


def without_gradient() -> AbstractContextManager[Any]:
    """`torch.no_grad()` where there is torch."""
    torch = sys.modules.get("torch")
    return nullcontext() if torch is None else torch.no_grad()


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)
