"""Running our autograd functions: through autograd where a gradient may be wanted, directly where
not, which saves a tenth of a millisecond per call and so a good part of a streaming step.
"""

from typing import Any

import torch
from torch import Tensor

__all__ = ["run"]


class _Forgetful:
    """A context that keeps nothing."""

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        pass


def run(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    """function.apply(*arguments), or its forward alone where gradients are off."""
    if torch.is_grad_enabled():
        return function.apply(*arguments)  # type: ignore[no-any-return,unused-ignore]
    result: Tensor = function.forward(_Forgetful(), *arguments)
    return result
