"""Swoosh functions against the formulas written out with elementary operations."""

import pytest
import torch
from torch import Tensor, nn

from dualasr_lib.model.activations import SwooshL, SwooshR


def naive(x: Tensor, shift: float, offset: float) -> Tensor:
    """ln(1 + e^(x - shift)) - 0.08 x - offset."""
    return torch.logaddexp(torch.zeros_like(x), x - shift) - 0.08 * x - offset


@pytest.mark.parametrize(
    ("module", "shift", "offset"), [(SwooshL(), 4.0, 0.035), (SwooshR(), 1.0, 0.313261687)]
)
def test_value_and_gradient(module: nn.Module, shift: float, offset: float) -> None:
    x = torch.linspace(-30, 30, 601, dtype=torch.float64, requires_grad=True)
    reference = naive(x, shift, offset)
    (expected,) = torch.autograd.grad(reference.sum(), x)
    y = module(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(y, reference, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-7)


def test_input_is_not_changed() -> None:
    x = torch.randn(5)
    before = x.clone()
    SwooshR()(x)
    assert torch.equal(x, before)
