"""Running our autograd functions: through autograd where a gradient may be wanted, directly where
not, which saves a tenth of a millisecond per call and so a good part of a streaming step.

A function whose forward pass a tracer cannot follow (views by strides, results written into
slices) says the same in plain operations, in a static method `plain` of the same arguments. It runs
while a model is traced for export, and nowhere else. tests/model/test_plain.py holds them equal.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["run", "tracing", "windows_by_slices"]


class _Forgetful:
    """A context that keeps nothing."""

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        pass


def run(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    """function.apply(*arguments), or its forward alone where gradients are off, or while a model is
    traced its plain form if it has one.
    """
    if tracing() and hasattr(function, "plain"):
        return function.plain(*arguments)
    if torch.is_grad_enabled():
        return function.apply(*arguments)  # type: ignore[no-any-return,unused-ignore]
    result: Tensor = function.forward(_Forgetful(), *arguments)
    return result


def tracing() -> bool:
    """Whether a model is being traced for export: then sizes may be symbols, and no branch may
    depend on values.
    """
    return bool(torch.jit.is_tracing())


def windows_by_slices(x: Tensor, block: int, width: int) -> Tensor:
    """All windows of W frames, B apart, of x (N, M B + W - B, C) -> (N, M, W, C), without strides.

    Windows are put together from slices of M B frames; M may be a symbol, unless it is 1.
    """
    batch, frames, channels = x.shape
    if frames == width:
        return x[:, None]
    whole = frames - width + block  # M B
    x = F.pad(x, (0, 0, 0, -width % block))  # the last slice is whole, too
    slices = [
        x[:, start : start + whole].reshape(batch, -1, block, channels)
        for start in range(0, width, block)
    ]
    return torch.cat(slices, dim=2)[:, :, :width]
