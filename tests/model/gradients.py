"""The gradients of two computations of the same thing."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["compare_gradients"]


def compare_gradients(got: Tensor, expected: Tensor, inputs: Sequence[Tensor]) -> None:
    """Both results must have the same gradients of `inputs` in a random direction."""
    direction = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad((got * direction).sum(), inputs),
        torch.autograd.grad((expected * direction).sum(), inputs),
    ):
        torch.testing.assert_close(a, b)
