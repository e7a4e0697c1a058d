"""The fused feed-forward against its chain of elementary operations, in pieces of any size."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualasr_lib.model.zipformer import activations
from dualasr_lib.model.zipformer.activations import SWOOSH_L
from dualasr_lib.model.zipformer.feedforward import FeedForward, feedforward
from dualasr_lib.model.zipformer.regularise import Balancer
from dualasr_lib.model.zipformer.training_aids import Aids


def layers(dtype: torch.dtype = torch.float64) -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    return nn.Linear(5, 7).to(dtype), nn.Linear(7, 3).to(dtype)


def slow(x: Tensor, first: nn.Linear, second: nn.Linear, mask: Tensor | None) -> Tensor:
    hidden = first(x)
    hidden = F.softplus(hidden - 4.0) - 0.08 * hidden - 0.035
    result: Tensor = second(hidden if mask is None else hidden * mask)
    return result


def gradients(y: Tensor, x: Tensor, *modules: nn.Module) -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    inputs = [x, *(p for module in modules for p in module.parameters())]
    return torch.autograd.grad((y * torch.randn_like(y)).sum(), inputs)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("piece", [1, 7 * 5, 3 * 11 * 7, 2**18])
@pytest.mark.parametrize("block", [1, 2 * 11 * 7, 2**17])
def test_value_and_gradients(
    masked: bool, piece: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations, "_PIECE", piece)
    monkeypatch.setattr(activations, "_BLOCK", block)
    first, second = layers()
    x = torch.randn(4, 11, 5, dtype=torch.float64, requires_grad=True)
    mask = 2.0 * (torch.rand(4, 1, 7, dtype=torch.float64) > 0.5) if masked else None
    got, expected = feedforward(x, first, second, mask), slow(x, first, second, mask)
    torch.testing.assert_close(got, expected)
    for a, b in zip(gradients(got, x, first, second), gradients(expected, x, first, second)):
        torch.testing.assert_close(a, b)


def test_balancer_of_the_hidden_layer() -> None:
    """The same push as a `Balancer` behind the first linear layer gives."""
    first, second = layers(torch.float32)
    x = torch.randn(4, 30, 5, requires_grad=True)
    balancer = Balancer(7, positive=(0.45, 0.55), absolute=(0.1, 0.2), prob=1.0, grad_scale=0.5)
    hidden = balancer(first(x))
    hidden = F.softplus(hidden - 4.0) - 0.08 * hidden - 0.035
    expected = gradients(second(hidden), x, first, second)
    balancer.origin = SWOOSH_L.shift
    got = gradients(feedforward(x, first, second, None, balancer.draw(3)), x, first, second)
    plain = gradients(feedforward(x, first, second), x, first, second)
    assert not torch.allclose(got[0], plain[0], rtol=1e-2)
    for a, b in zip(got, expected):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_autocast_gives_parameters_gradients_of_their_own_type() -> None:
    first, second = layers(torch.float32)
    x = torch.randn(2, 30, 5, requires_grad=True)
    wanted = gradients(feedforward(x, first, second), x, first, second)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = feedforward(x, first, second)
    assert low.dtype == torch.bfloat16
    for a, b in zip(gradients(low.float(), x, first, second), wanted):
        assert a.dtype == torch.float32
        assert float((a - b).norm() / b.norm()) < 0.06


def test_dropout_has_one_mask_for_all_frames_and_none_in_evaluation() -> None:
    torch.manual_seed(0)
    module = FeedForward(4, 64, 0.5, Aids(False))
    x = torch.randn(1, 1, 4).expand(3, 6, 4)
    y = module.train()(x)
    torch.testing.assert_close(y, y[:, :1].expand_as(y))
    assert not torch.allclose(y[0], y[1])
    assert torch.equal(module.eval()(x), module(x))
