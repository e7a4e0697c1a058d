"""BiasNorm with its analytic gradient, and what Bypass and BiasNorm do to values out of range."""

import math

import pytest
import torch
from gradients import compare_gradients

from dualasr_lib.model.zipformer.normalisation import BiasNorm, Bypass
from dualasr_lib.model.zipformer.scheduled import Scheduled, set_step
from dualasr_lib.model.zipformer.training_aids import Aids


def test_bias_norm_and_its_gradient() -> None:
    torch.manual_seed(0)
    norm = BiasNorm(6).double().eval()
    with torch.no_grad():
        norm.bias.normal_()
    x = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    expected = x * norm.log_scale.exp() / (x - norm.bias).square().mean(-1, keepdim=True).sqrt()
    got = norm(x)
    torch.testing.assert_close(got, expected)
    compare_gradients(got, expected, (x, norm.bias, norm.log_scale))


def test_bias_norm_of_zeros_is_finite() -> None:
    norm = BiasNorm(4)
    with torch.no_grad():
        norm.bias.zero_()
    x = torch.zeros(1, 2, 4, requires_grad=True)
    y = norm(x)
    y.sum().backward()
    assert bool(y.isfinite().all()) and x.grad is not None and bool(x.grad.isfinite().all())


def test_values_out_of_range_are_led_back() -> None:
    """Whatever the loss wants: descent on a loss that pulls them further out brings them in."""
    torch.manual_seed(0)
    bypass = Bypass(3, Aids(False)).train()  # scale 0.5, floor 0.9
    norm = BiasNorm(3).train()
    with torch.no_grad():
        norm.log_scale.fill_(1.8)
    before, after = torch.zeros(1, 4, 3), torch.ones(1, 4, 3)
    optimiser = torch.optim.SGD([*bypass.parameters(), norm.log_scale], lr=0.02)
    for _ in range(100):
        loss = bypass(before, after).mean() * 3.0 - 0.1 * norm(after).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert 0.85 < float(bypass.scale.detach().min()) < 0.95
    assert float(norm.log_scale.detach()) < 1.6


def test_floor_follows_the_warm_up() -> None:
    bypass = Bypass(2, Aids(True))
    assert bypass.floor.now() == 0.9
    set_step(bypass, 20000)
    assert bypass.floor.now() == pytest.approx(0.2)
    assert bypass.state_dict().keys() == {"scale"}
    a, b = torch.zeros(1, 1, 2), torch.ones(1, 1, 2)
    torch.testing.assert_close(bypass.eval()(a, b).detach(), torch.full((1, 1, 2), 0.5))


def test_a_skipped_utterance_keeps_its_input() -> None:
    torch.manual_seed(0)
    bypass = Bypass(2, Aids(True), Scheduled((0, 0.5), saved=False)).train()
    before, after = torch.zeros(400, 3, 2), torch.ones(400, 3, 2)
    y = bypass(before, after)
    skipped = (y == 0).flatten(1)
    assert bool((skipped.all(1) | ~skipped.any(1)).all())
    assert math.isclose(float(skipped[:, 0].float().mean()), 0.5, abs_tol=0.1)
    assert bool((bypass.eval()(before, after) > 0).all())


@pytest.mark.parametrize("skipped", [False, True])
def test_bypass_is_linear_interpolation(skipped: bool) -> None:
    """Value and gradients are those of torch.lerp, with one scale for all and with skips."""
    torch.manual_seed(0)
    before, after = torch.randn(2, 3, 5, 4, dtype=torch.float64).requires_grad_().unbind()
    bypass = Bypass(4, Aids(False), Scheduled((0, 0.5), saved=False)).double().train(skipped)
    with torch.no_grad():
        bypass.scale.uniform_(0.9, 1.0)  # inside its range
    torch.manual_seed(1)
    got = bypass(before, after)
    kept = (got != before).flatten(1).any(dim=1)
    assert kept.any() and bool(kept.all()) != skipped
    expected = torch.lerp(before, after, bypass.scale * kept.double()[:, None, None])
    torch.testing.assert_close(got, expected)
    compare_gradients(got, expected, (before, after, bypass.scale))
