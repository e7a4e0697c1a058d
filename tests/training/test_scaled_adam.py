"""ScaledAdam against a slow reference that treats one number at a time, and in use."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from dualasr_lib.training.clipping import ClippingConfig
from dualasr_lib.training.scaled_adam import ScaledAdam, ScaledAdamConfig

_NO_CLIP = ClippingConfig(scale=0.0)
_SHAPES = {"a": (3, 4), "b": (3, 4), "c": (5,), "d": (1,), "e": (), "f": (5,)}


class _Reference:
    """The formulas of the module docstring for one tensor, on lists of Python floats."""

    def __init__(self, values: list[float], config: ScaledAdamConfig) -> None:
        self.values = values
        self.config = config
        self.m, self.v = [0.0] * len(values), [0.0] * len(values)
        self.n = self.w = 0.0
        self.recent: list[float] = []

    def step(self, gradient: list[float], lr: float, t: int) -> None:
        c = self.config
        rms = math.sqrt(sum(p * p for p in self.values) / len(self.values))
        size = min(max(rms, c.min_rms), c.max_rms)
        rate = lr * c.scalar_lr_scale if len(self.values) == 1 else lr * size
        growth = 0.0 if len(self.values) == 1 else self._growth(gradient, lr, t, rms)
        for i, g in enumerate(gradient):
            self.m[i] = c.beta1 * self.m[i] + (1 - c.beta1) * g
            self.v[i] = c.beta2 * self.v[i] + (1 - c.beta2) * g * g
            m, v = self.m[i] / (1 - c.beta1**t), self.v[i] / (1 - c.beta2**t)
            self.values[i] += self.values[i] * growth - rate * m / (math.sqrt(v) + c.eps)

    def _growth(self, gradient: list[float], lr: float, t: int, rms: float) -> float:
        c, period = self.config, self.config.size_update_period
        self.recent.append(sum(p * g for p, g in zip(self.values, gradient)))
        if t % period:
            return 0.0
        b1, b2, k = c.beta1**period, c.beta2**period, t // period
        self.n = b1 * self.n + (1 - b1) * sum(self.recent) / period
        self.w = b2 * self.w + (1 - b2) * sum(h * h for h in self.recent) / period
        self.recent = []
        full = lr * c.scalar_lr_scale * period
        if rms < c.min_rms:
            return min(full, 0.1)
        if rms > c.max_rms:
            return max(-full, -0.1)
        n, w = self.n / (1 - b1**k), self.w / (1 - b2**k)
        return min(max(-full * n / (math.sqrt(w) + c.eps), -0.1), 0.1)


def _parameters(dtype: torch.dtype = torch.float64) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    made = {n: torch.randn(s, generator=generator, dtype=dtype) for n, s in _SHAPES.items()}
    made["a"] *= 10  # larger than max_rms
    made["f"].zero_()  # smaller than min_rms
    return {name: nn.Parameter(value) for name, value in made.items()}


def _gradients(steps: int, scale: float = 1.0) -> Iterator[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        draw = {n: torch.randn(s, generator=generator).double() for n, s in _SHAPES.items()}
        yield {name: (value + 0.5) * scale for name, value in draw.items()}


def _run(
    optimizer: ScaledAdam,
    parameters: dict[str, nn.Parameter],
    gradients: Iterator[dict[str, Tensor]],
    lr: float = 0.05,
) -> None:
    for gradient in gradients:
        for name, parameter in parameters.items():
            parameter.grad = gradient[name].to(parameter.dtype)
        optimizer.step(lr)


@pytest.mark.parametrize("lr", [0.05, 1.0])
@pytest.mark.parametrize("period", [1, 4])
def test_equals_the_slow_reference(period: int, lr: float) -> None:
    """Learning rate 1 reaches the limit of the size step."""
    config = ScaledAdamConfig(size_update_period=period)
    parameters = _parameters()
    reference = {n: _Reference(p.flatten().tolist(), config) for n, p in parameters.items()}
    optimizer = ScaledAdam(parameters.items(), config, _NO_CLIP)
    for t, gradient in enumerate(_gradients(30), start=1):
        _run(optimizer, parameters, iter([gradient]), lr)
        for name, slow in reference.items():
            slow.step(gradient[name].flatten().tolist(), lr, t)
            expected = torch.tensor(slow.values).double()
            torch.testing.assert_close(
                parameters[name].detach().flatten(), expected, rtol=1e-6, atol=1e-9
            )


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_the_scale_of_the_loss_does_not_matter(scale: float) -> None:
    one, other = _parameters(), _parameters()
    config = ScaledAdamConfig(eps=1e-12)
    _run(ScaledAdam(one.items(), config, ClippingConfig()), one, _gradients(40))
    _run(ScaledAdam(other.items(), config, ClippingConfig()), other, _gradients(40, scale))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-6, atol=1e-9)


def test_a_step_is_relative_to_the_size_of_the_tensor() -> None:
    small = {"p": nn.Parameter(torch.randn(7, dtype=torch.float64) * 1e-3)}
    large = {"p": nn.Parameter(small["p"].detach() * 1000)}
    gradient = {"p": torch.randn(7, dtype=torch.float64)}
    before = small["p"].detach().clone()
    for parameters in (small, large):
        optimizer = ScaledAdam(parameters.items(), ScaledAdamConfig(), _NO_CLIP)
        _run(optimizer, parameters, iter([gradient]))
    moved = small["p"].detach() - before
    torch.testing.assert_close(large["p"].detach() - before * 1000, moved * 1000)


def test_size_limits_pull_back() -> None:
    """Random gradients: a huge tensor shrinks to the limit, a tiny one leaves it."""
    generator = torch.Generator().manual_seed(3)
    huge = nn.Parameter(torch.randn(50, generator=generator) * 30)
    optimizer = ScaledAdam([("huge", huge)], ScaledAdamConfig(), _NO_CLIP)
    for _ in range(600):
        huge.grad = torch.randn(50, generator=generator)
        optimizer.step(0.05)
    assert float(huge.detach().square().mean().sqrt()) < 5.0


def test_clipping_looks_at_gradients_weighted_by_size() -> None:
    parameters = {
        "matrix": nn.Parameter(torch.full((2, 2), 0.5)),
        "scalar": nn.Parameter(torch.tensor([7.0])),
    }
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer = ScaledAdam(parameters.items(), ScaledAdamConfig(), ClippingConfig())
    update = optimizer.step(0.01)
    assert update.grad_norm == pytest.approx(math.sqrt(4 * 0.25 + 1))


def test_a_wild_gradient_moves_no_further_than_the_clipped_one() -> None:
    moved = []
    for factor in (2.0, 1e6):  # the second is clipped to the first
        parameter = nn.Parameter(torch.ones(4))
        config = ScaledAdamConfig(scalar_lr_scale=1e-9)
        optimizer = ScaledAdam([("p", parameter)], config, ClippingConfig(window=10))
        for n in range(11):
            parameter.data.fill_(1.0)  # so that norms are comparable
            parameter.grad = torch.full((4,), factor if n == 10 else 1.0)
            update = optimizer.step(0.01)
        assert update.clip_factor == pytest.approx(2.0 / factor)
        moved.append(parameter.detach().clone())
    torch.testing.assert_close(moved[0], moved[1])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_gradient_changes_nothing(bad: float) -> None:
    parameters = _parameters(torch.float32)
    optimizer = ScaledAdam(parameters.items(), ScaledAdamConfig(), ClippingConfig())
    _run(optimizer, parameters, _gradients(5))
    before = {name: p.detach().clone() for name, p in parameters.items()}
    state = str(optimizer.state_dict())
    parameters["c"].grad = torch.tensor([0, 0, bad, 0, 0])
    update = optimizer.step(0.05)
    assert not update.applied
    assert all(torch.equal(before[name], p) for name, p in parameters.items())
    assert str(optimizer.state_dict()) == state


def test_no_gradient_counts_as_zero() -> None:
    one, other = _parameters(), _parameters()
    for parameters in (one, other):
        optimizer = ScaledAdam(parameters.items(), ScaledAdamConfig(), _NO_CLIP)
        _run(optimizer, parameters, _gradients(3))
        zero = None if parameters is one else torch.zeros(3, 4, dtype=torch.float64)
        parameters["b"].grad = zero
        optimizer.step(0.05)
    assert torch.equal(one["b"], other["b"])


def test_state_round_trip_is_exact() -> None:
    whole, parts = _parameters(torch.float32), _parameters(torch.float32)
    steps = list(_gradients(26))
    _run(ScaledAdam(whole.items(), ScaledAdamConfig(), ClippingConfig()), whole, iter(steps))
    first = ScaledAdam(parts.items(), ScaledAdamConfig(), ClippingConfig())
    _run(first, parts, iter(steps[:14]))  # 14 is no multiple of the period
    second = ScaledAdam(parts.items(), ScaledAdamConfig(), ClippingConfig())
    second.load_state_dict(first.state_dict())
    _run(second, parts, iter(steps[14:]))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_state_of_other_parameters_is_refused() -> None:
    parameters = _parameters()
    state = ScaledAdam(parameters.items(), ScaledAdamConfig(), _NO_CLIP).state_dict()
    parameters["z"] = parameters.pop("c")
    other = ScaledAdam(parameters.items(), ScaledAdamConfig(), _NO_CLIP)
    with pytest.raises(ValueError, match=r"differ: \['c', 'z'\]"):
        other.load_state_dict(state)


def test_it_converges() -> None:
    """Least squares with badly scaled columns, to 1e-3 of the first loss."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 6, generator=generator) * torch.tensor([0.1, 1, 1, 3, 1, 10])
    targets = inputs @ torch.tensor([5.0, -1, 0.5, 0.3, 2, -0.2]) + 1.5
    weight, bias = nn.Parameter(torch.full((6,), 0.1)), nn.Parameter(torch.tensor(0.1))
    optimizer = ScaledAdam(
        [("weight", weight), ("bias", bias)], ScaledAdamConfig(), ClippingConfig()
    )
    losses = []
    for step in range(1500):
        weight.grad = bias.grad = None
        loss = (inputs @ weight + bias - targets).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step(0.1 if step < 700 else 0.1 * (1500 - step) / 800)
        losses.append(float(loss.detach()))
    assert losses[-1] < 1e-3 * losses[0]


@pytest.mark.parametrize(
    "bad", [{"beta1": 1.0}, {"size_update_period": 0}, {"min_rms": 5.0}, {"beta2": -0.1}]
)
def test_settings_are_checked(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        ScaledAdamConfig(**bad)  # type: ignore[arg-type]


def test_no_parameters_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one parameter"):
        ScaledAdam([], ScaledAdamConfig(), _NO_CLIP)
