"""Swoosh functions and the linear layer behind them against the formulas written out."""

import pytest
import torch
import torch.nn.functional as F
from gradients import compare_gradients
from torch import Tensor

from dualasr_lib.model.zipformer import activations
from dualasr_lib.model.zipformer.activations import (
    SWOOSH_L,
    SWOOSH_R,
    Pieces,
    Swoosh,
    swoosh,
    swoosh_linear,
)

KINDS = [(SWOOSH_L, 4.0, 0.035), (SWOOSH_R, 1.0, 0.313261687)]


def naive(x: Tensor, shift: float, offset: float) -> Tensor:
    """ln(1 + e^(x - shift)) - 0.08 x - offset."""
    return torch.logaddexp(torch.zeros_like(x), x - shift) - 0.08 * x - offset


@pytest.mark.parametrize(("kind", "shift", "offset"), KINDS)
def test_value_and_gradient(kind: Swoosh, shift: float, offset: float) -> None:
    x = torch.linspace(-60, 60, 1201, dtype=torch.float64, requires_grad=True)
    reference = naive(x, shift, offset)
    (expected,) = torch.autograd.grad(reference.sum(), x)
    y = swoosh(x - kind.shift, kind)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(y, reference, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("block", [1, 4 * 5 * 3, 2**17])
def test_maps_behind_a_cache_in_blocks_of_any_size(
    layout: torch.memory_format, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations, "_BLOCK", block)
    torch.manual_seed(0)
    x = torch.randn(3, 4, 11, 5, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    cache = torch.randn(3, 4, 2, 5, dtype=torch.float64, requires_grad=True)
    kind, shift, offset = KINDS[0]
    expected = torch.cat([cache, naive(x, shift, offset)], dim=2)
    got = swoosh(x - kind.shift, kind, cache=cache)
    torch.testing.assert_close(got, expected)
    assert got.is_contiguous(memory_format=layout)
    compare_gradients(got, expected, (x, cache))


@pytest.mark.parametrize(("kind", "shift", "offset"), KINDS)
def test_linear_behind_it(kind: Swoosh, shift: float, offset: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 11, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    expected = F.linear(naive(x, shift, offset), weight, bias)
    got = swoosh_linear(x - kind.shift, kind, weight, bias)
    torch.testing.assert_close(got, expected)
    compare_gradients(got, expected, (x, weight, bias))


def test_pieces_cover_every_frame_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for piece in (1, 20, 7 * 11 * 2, 10**6):
        monkeypatch.setattr(activations, "_PIECE", piece)
        x = torch.zeros(5, 11, 7)
        for part in Pieces(x):
            assert x[part].is_contiguous()
            assert x[part].numel() <= max(piece, 7)
            x[part] += 1.0
        assert bool((x == 1.0).all())


@pytest.mark.parametrize(("kind", "shift", "offset"), KINDS)
def test_extreme_inputs_stay_finite(kind: Swoosh, shift: float, offset: float) -> None:
    u = torch.tensor([-1e4, -200.0, 0.0, 84.0, 200.0, 1e4], requires_grad=True)
    y = swoosh(u, kind)
    (gradient,) = torch.autograd.grad(y.sum(), u)
    assert bool(y.isfinite().all())
    x = u.detach().double() + kind.shift
    torch.testing.assert_close(gradient, torch.sigmoid(x - shift).float() - 0.08)
    exact = naive(x, shift, offset).float()
    torch.testing.assert_close(y[:4], exact[:4])


def test_autocast_runs_products_in_bfloat16_and_gives_parameters_their_own_type() -> None:
    torch.manual_seed(0)
    u = torch.randn(2, 30, 16, requires_grad=True)
    weight, bias = torch.randn(8, 16, requires_grad=True), torch.zeros(8, requires_grad=True)
    exact = swoosh_linear(u, SWOOSH_L, weight, bias)
    wanted = torch.autograd.grad(exact.square().sum(), (u, weight, bias))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = swoosh_linear(u.bfloat16(), SWOOSH_L, weight, bias)
    assert low.dtype == torch.bfloat16
    got = torch.autograd.grad(low.float().square().sum(), (u, weight, bias))
    for a, b in zip(got, wanted):
        assert a.dtype == torch.float32
        assert float((a - b).norm() / b.norm()) < 0.03


def test_input_is_not_changed() -> None:
    x = torch.randn(5)
    before = x.clone()
    swoosh(x, SWOOSH_R)
    assert torch.equal(x, before)
