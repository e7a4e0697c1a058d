"""Regularisers: identity forward, gradients against penalties written out with plain autograd."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dualasr_lib.model.zipformer.regularise import Balancer, Whiten, limit_value, whiteness
from dualasr_lib.model.zipformer.scheduled import Scheduled, set_step

Regulariser = Callable[[Tensor], Tensor]


def uneven(*shape: int) -> Tensor:
    """Channels (last) of many means and sizes, so that some violate every limit."""
    generator = torch.Generator().manual_seed(1)
    channels = shape[-1]
    x = torch.randn(shape, generator=generator)
    return (x + torch.linspace(-3.0, 3.0, channels)) * torch.logspace(-2, 2, channels).flip(0)


def narrow(*shape: int) -> Tensor:
    """Channels that are ruled by two directions."""
    generator = torch.Generator().manual_seed(2)
    few = torch.randn(*shape[:-1], 2, generator=generator)
    spread = torch.randn(2, shape[-1], generator=generator)
    return few @ spread + 0.1 * torch.randn(shape, generator=generator) + 3.0


def gradient(regulariser: Regulariser, x: Tensor, incoming: Tensor) -> Tensor:
    """What arrives at x when `incoming` arrives at the regulariser's output."""
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(regulariser(x), x, incoming)[0]


def balancer_reference(x: Tensor, incoming: Tensor, wanted: Balancer) -> Tensor:
    """The definition in the docstring of `Balancer`, in float64, channels last."""
    x = x.detach().double().requires_grad_()
    frames = x.reshape(-1, x.shape[-1])
    normal = torch.distributions.Normal(0.0, 1.0)
    shares = torch.tensor([wanted.min_positive, wanted.max_positive], dtype=torch.float64)
    low, high = normal.icdf(shares).tolist()
    ratio = frames.mean(0) / frames.var(0, unbiased=False).sqrt()
    rms = frames.square().mean(0).sqrt()
    spread = math.sqrt(math.pi / 2)
    asked = rms.detach().clamp(spread * wanted.min_abs, spread * wanted.max_abs)
    loss = (ratio - ratio.detach().clamp(low, high)).square() / 2 + (asked / rms).log().abs()
    (push,) = torch.autograd.grad(loss.sum(), x)
    size = push.square().reshape(frames.shape).mean(0).sqrt()
    push = torch.where(loss > 0, push / size, torch.zeros_like(push))
    return incoming + wanted.grad_scale * incoming.abs() * push


def whiten_reference(x: Tensor, incoming: Tensor, groups: int, grad_scale: float) -> Tensor:
    """The gradient of the metric itself, scaled to grad_scale * ||incoming||, in float64."""
    x = x.detach().double().requires_grad_()
    channels = x.shape[-1]
    frames = x.reshape(-1, groups, channels // groups)
    frames = frames - frames.mean(dim=0)
    covariance = torch.einsum("ngi,ngj->gij", frames, frames) / frames.shape[0]
    trace = torch.einsum("gii->", covariance)
    metric = covariance.square().sum() * channels / trace.square()
    (push,) = torch.autograd.grad(metric, x)
    return incoming + push * (grad_scale * incoming.norm() / push.norm())


ALWAYS: list[tuple[str, Callable[[bool], Regulariser]]] = [
    ("balancer", lambda on: Balancer(12, prob=1.0).train(on)),
    ("whiten", lambda on: Whiten(3, 1.5, prob=1.0).train(on)),
    ("limit", lambda on: lambda x: limit_value(x, -1.0, 1.0, 1.0, training=on)),
]


@pytest.mark.parametrize("make", [m for _, m in ALWAYS], ids=[n for n, _ in ALWAYS])
class TestAll:
    """What every regulariser promises."""

    def test_forward_is_the_identity_to_the_bit(self, make: Callable[[bool], Regulariser]) -> None:
        x = uneven(2, 30, 12).requires_grad_()
        y = make(True)(x)
        assert y is not x and y.grad_fn is not None
        assert torch.equal(y, x)

    def test_gradient_is_changed_in_training_only(
        self, make: Callable[[bool], Regulariser]
    ) -> None:
        x, incoming = uneven(2, 30, 12), torch.randn(2, 30, 12)
        assert not torch.equal(gradient(make(True), x, incoming), incoming)

    def test_nothing_at_all_in_evaluation(self, make: Callable[[bool], Regulariser]) -> None:
        x = uneven(2, 30, 12).requires_grad_()
        state = torch.get_rng_state()
        assert make(False)(x) is x
        with torch.no_grad():
            assert make(True)(x) is x
        assert make(True)(x.detach()).grad_fn is None
        assert torch.equal(torch.get_rng_state(), state)

    def test_empty_input(self, make: Callable[[bool], Regulariser]) -> None:
        x = torch.zeros(0, 5, 12, requires_grad=True)
        assert make(True)(x) is x

    def test_bfloat16(self, make: Callable[[bool], Regulariser]) -> None:
        x, incoming = uneven(2, 30, 12).bfloat16(), torch.randn(2, 30, 12).bfloat16()
        expected = gradient(make(True), x.float(), incoming.float())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = gradient(make(True), x, incoming)
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got.float(), expected, rtol=1e-2, atol=1e-4)

    def test_scaling_the_loss_scales_the_gradient(
        self, make: Callable[[bool], Regulariser]
    ) -> None:
        x, incoming = uneven(2, 30, 12), torch.randn(2, 30, 12)
        plain, scaled = (gradient(make(True), x, scale * incoming) for scale in (1.0, 1024.0))
        torch.testing.assert_close(plain * 1024.0, scaled)

    def test_broadcast_gradient(self, make: Callable[[bool], Regulariser]) -> None:
        x = uneven(2, 30, 12).requires_grad_()
        (got,) = torch.autograd.grad(make(True)(x).sum(), x)
        assert torch.equal(got, gradient(make(True), x, torch.ones(2, 30, 12)))


@pytest.mark.parametrize(
    "limits",
    [
        {"positive": (0.05, 0.95), "absolute": (0.2, 100.0)},
        {"positive": (0.3, 1.0), "absolute": (0.75, 5.0)},
        {"positive": (0.45, 0.55), "absolute": (0.0, math.inf)},
        {"positive": (0.0, 1.0), "absolute": (0.1, 4.0)},
    ],
)
def test_balancer_matches_the_penalty(limits: dict[str, tuple[float, float]]) -> None:
    x, incoming = uneven(3, 50, 12), torch.randn(3, 50, 12)
    balancer = Balancer(12, **limits, grad_scale=0.3, prob=1.0)
    expected = balancer_reference(x, incoming.double(), balancer).float()
    got = gradient(balancer, x, incoming)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    changed = (got != incoming).any(dim=0).any(dim=0)
    assert 0 < int(changed.sum()) < 12 or limits["absolute"][1] in (math.inf, 4.0)


def test_balancer_of_another_channel_dimension() -> None:
    x, incoming = uneven(3, 8, 5, 12), torch.randn(3, 8, 5, 12)
    last, first = (Balancer(12, dim, grad_scale=0.3, prob=1.0) for dim in (-1, 1))
    expected = gradient(last, x, incoming).permute(0, 3, 1, 2)
    got = gradient(first, x.permute(0, 3, 1, 2), incoming.permute(0, 3, 1, 2))
    torch.testing.assert_close(got, expected)


def test_balancer_leaves_a_healthy_channel_alone() -> None:
    x, incoming = torch.randn(3, 100, 4), torch.randn(3, 100, 4)
    assert torch.equal(gradient(Balancer(4, prob=1.0), x, incoming), incoming)


@pytest.mark.parametrize("value", [0.0, 5.0, 1e-30, 1e15])
def test_balancer_of_a_constant_channel_stays_finite_and_bounded(value: float) -> None:
    x, incoming = torch.full((2, 20, 3), value), torch.randn(2, 20, 3)
    got = gradient(Balancer(3, grad_scale=0.1, prob=1.0), x, incoming)
    assert bool(((got - incoming).abs() <= 0.11 * incoming.abs() + 1e-6).all())
    if value == 5.0:
        assert bool((got > incoming).all())  # all positive: descending makes it smaller


def test_balancer_reads_a_subset_of_many_frames() -> None:
    base, incoming = uneven(4, 300, 6), torch.randn(4, 1500, 6)
    x = base.repeat_interleave(5, dim=1)  # 6000 frames: every 5th is read, all phases alike
    balancer = Balancer(6, grad_scale=0.3, prob=1.0)
    expected = balancer_reference(x, incoming.double(), balancer).float()
    got = gradient(balancer, x, incoming)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    unread = x.clone()
    torch.manual_seed(0)
    first = int(torch.rand(()) * 5)
    torch.manual_seed(0)
    unread[:, [t for t in range(1500) if t % 5 != first]] = 0.0
    got = gradient(balancer, unread, incoming)
    torch.testing.assert_close(got[:, first::5], expected[:, first::5], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 3])
def test_whiten_matches_the_gradient_of_its_metric(groups: int) -> None:
    x, incoming = narrow(3, 50, 12), torch.randn(3, 50, 12)
    expected = whiten_reference(x, incoming.double(), groups, 0.2).float()
    got = gradient(Whiten(groups, 1.2, prob=1.0, grad_scale=0.2), x, incoming)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert float((got - incoming).norm() / incoming.norm()) == pytest.approx(0.2, rel=1e-3)


@pytest.mark.parametrize("groups", [1, 2])
def test_whiten_of_a_subset_comes_to_the_same(groups: int) -> None:
    base, incoming = narrow(4, 300, 8), torch.randn(4, 1500, 8)
    x = base.repeat_interleave(5, dim=1)  # 6000 frames: every 5th, all phases alike
    expected = whiten_reference(x, incoming.double(), groups, 0.2).float() - incoming
    whiten = Whiten(groups, 1.2, prob=1.0, grad_scale=0.2)
    phases = {}
    while len(phases) < 5:
        push = gradient(whiten, x, incoming) - incoming
        touched = push[0].abs().sum(dim=1).nonzero()[:, 0]
        assert len(touched) == 300 and bool((touched % 5 == touched[0]).all())
        phases[int(touched[0])] = push
    torch.testing.assert_close(sum(phases.values()) / 5, expected, rtol=1e-3, atol=1e-4)


def test_whiten_leaves_what_is_below_its_limit_alone() -> None:
    x, incoming = narrow(3, 50, 12), torch.randn(3, 50, 12)
    metric = float(whiteness(x))
    assert 2.0 < metric < 12.0
    assert torch.equal(gradient(Whiten(1, metric * 1.01, prob=1.0), x, incoming), incoming)
    assert not torch.equal(gradient(Whiten(1, metric * 0.99, prob=1.0), x, incoming), incoming)
    constant = torch.ones(3, 50, 12)
    assert torch.equal(gradient(Whiten(1, 1.0, prob=1.0), constant, incoming), incoming)


def test_whiteness_of_known_spectra() -> None:
    white = torch.cat([torch.eye(4), -torch.eye(4)])
    assert float(whiteness(white)) == pytest.approx(1.0)
    single = torch.tensor([[1.0], [-1.0]]) * torch.ones(1, 4) * 1e4
    assert float(whiteness(single)) == pytest.approx(4.0)
    assert float(whiteness(single, groups=4)) == pytest.approx(1.0)


def test_limited_value_comes_back() -> None:
    x = torch.tensor([-0.5, 0.1, 0.5, 2.0, 3.0])
    incoming = torch.tensor([1.0, -1.0, 1.0, -2.0, 3.0])
    got = gradient(lambda v: limit_value(v, 0.0, 1.0, prob=1.0), x, incoming)
    assert got.tolist() == [-1.0, -1.0, 1.0, 2.0, 3.0]


def test_training_brings_channels_into_range() -> None:
    """Scale and shift of three channels under a loss that does not care: its gradients cancel."""
    x = torch.randn(200, 3).repeat(2, 1)
    indifferent = torch.ones(400, 3)
    indifferent[200:] = -1.0

    def trained(balancer: Balancer) -> Tensor:
        scale = nn.Parameter(torch.tensor([1.0, 0.01, 30.0]))
        shift = nn.Parameter(torch.tensor([6.0, 0.0, 0.0]))
        optimiser = torch.optim.SGD([scale, shift], lr=1e-3)
        for _ in range(1000):
            optimiser.zero_grad()
            balancer(x * scale + shift).backward(indifferent)
            optimiser.step()
        return (x * scale + shift).detach()

    def faults(y: Tensor) -> list[bool]:
        share, size = (y > 0).float().mean(dim=0), y.abs().mean(dim=0)
        return [float(share[0]) > 0.8, float(size[1]) < 0.45, float(size[2]) > 4.5]

    limits = {"positive": (0.3, 0.7), "absolute": (0.5, 4.0)}
    assert faults(trained(Balancer(3, **limits).eval())) == [True, True, True]
    balancer = Balancer(3, **limits, grad_scale=0.3, prob=0.5)
    assert faults(trained(balancer)) == [False, False, False]


def test_training_whitens() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(16, 16)
    with torch.no_grad():
        linear.weight[1:] = 0.1 * linear.weight[1:] + linear.weight[0]
    x = torch.randn(300, 16)
    before = float(whiteness(linear(x).detach()))
    whiten = Whiten(1, 3.0, prob=0.5, grad_scale=0.2)
    optimiser = torch.optim.SGD(linear.parameters(), lr=1e-3)
    for _ in range(600):
        optimiser.zero_grad()
        (whiten(linear(x)) * torch.randn(300, 16)).sum().backward()
        optimiser.step()
    after = float(whiteness(linear(x).detach()))
    assert before > 8.0 and after < 4.0


def test_origin_is_added_before_balancing() -> None:
    x, incoming = uneven(2, 60, 4), torch.randn(2, 60, 4)
    shifted = Balancer(4, absolute=(0.5, 2.0), grad_scale=0.3, prob=1.0, origin=1.5)
    plain = Balancer(4, absolute=(0.5, 2.0), grad_scale=0.3, prob=1.0)
    expected = gradient(plain, x, incoming)
    assert not torch.equal(expected, incoming)
    torch.testing.assert_close(gradient(shifted, x - 1.5, incoming), expected)


def test_draws_follow_probability_and_seed() -> None:
    x = uneven(1, 20, 4).requires_grad_()

    def drawn(balancer: Balancer) -> list[bool]:
        torch.manual_seed(7)
        return [balancer(x) is not x for _ in range(2000)]

    balancer = Balancer(4)
    early = drawn(balancer)
    assert early == drawn(balancer)
    set_step(balancer, 8000)
    late = drawn(balancer)
    assert abs(sum(early) / 2000 - 0.5) < 0.05 and abs(sum(late) / 2000 - 0.125) < 0.03
    assert balancer.state_dict() == {}


def test_limits_may_follow_a_schedule() -> None:
    x, incoming = torch.randn(2, 200, 3), torch.randn(2, 200, 3)
    balancer = Balancer(3, absolute=(0.2, Scheduled((0, 5.0), (10, 0.5))), prob=1.0)
    whiten = Whiten(1, Scheduled((0, 1.5), (10, 1.0)), prob=1.0)
    for module in (balancer, whiten):
        assert torch.equal(gradient(module, x, incoming), incoming)
        set_step(module, 10)
        assert not torch.equal(gradient(module, x, incoming), incoming)


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="0 <= min < max <= 1"):
        Balancer(3, positive=(0.6, 0.5))
    with pytest.raises(ValueError, match="mean absolute values"):
        Balancer(3, absolute=(1.0, 0.5))
    with pytest.raises(ValueError, match="must have 3 channels"):
        Balancer(3)(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="at least 1"):
        Whiten(1, 0.5)
    with pytest.raises(ValueError, match="multiple of 3 groups"):
        Whiten(3, 2.0)(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="low must not be above high"):
        limit_value(torch.zeros(1), 2.0, 1.0)
