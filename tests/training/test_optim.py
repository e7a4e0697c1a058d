"""The choice of an optimiser, and AdamW behind its interface."""

import pytest
import torch
from torch import nn

from dualasr_lib.training.adamw import AdamW, AdamWConfig
from dualasr_lib.training.clipping import ClippingConfig
from dualasr_lib.training.optim import OptimConfig, Optimizer, build_optimizer
from dualasr_lib.training.scaled_adam import ScaledAdam


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def _train(model: nn.Module, optimizer: Optimizer, first: int, last: int) -> None:
    for n in range(first, last):
        inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(n))
        model.zero_grad()
        torch.autograd.backward((model(inputs) - inputs[:, :1]).square().mean())
        optimizer.step(1e-2)


def test_the_name_decides() -> None:
    assert isinstance(build_optimizer(_model(), OptimConfig()), ScaledAdam)
    assert isinstance(build_optimizer(_model(), OptimConfig(name="adamw")), AdamW)
    with pytest.raises(ValueError, match="must be scaled_adam or adamw, but is 'sgd'"):
        build_optimizer(_model(), OptimConfig(name="sgd"))  # type: ignore[arg-type]


def test_a_frozen_model_is_an_error_and_frozen_parts_stay() -> None:
    model = _model()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    _train(model, build_optimizer(model, OptimConfig()), 0, 3)
    assert torch.equal(model[0].weight, before)
    with pytest.raises(ValueError, match="at least one trainable parameter"):
        build_optimizer(model.requires_grad_(False), OptimConfig())


def test_adamw_equals_that_of_torch_where_nothing_is_clipped() -> None:
    """Matrices decay, vectors do not."""
    ours, theirs = _model(), _model()
    config = AdamWConfig(weight_decay=0.3)
    optimizer = AdamW(ours.named_parameters(), config, ClippingConfig(scale=0.0))
    decayed = [p for p in theirs.parameters() if p.dim() > 1]
    others = [p for p in theirs.parameters() if p.dim() == 1]
    reference = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.3}, {"params": others, "weight_decay": 0.0}],
        lr=1e-2,
        betas=(0.9, 0.98),
    )
    _train(ours, optimizer, 0, 20)
    for n in range(20):
        inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(n))
        theirs.zero_grad()
        torch.autograd.backward((theirs(inputs) - inputs[:, :1]).square().mean())
        reference.step()
    for one, other in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["scaled_adam", "adamw"])
def test_state_round_trip_is_exact(name: str) -> None:
    config = OptimConfig(name=name)  # type: ignore[arg-type]
    whole, parts = _model(), _model()
    _train(whole, build_optimizer(whole, config), 0, 25)
    first, second = build_optimizer(parts, config), build_optimizer(parts, config)
    _train(parts, first, 0, 13)
    second.load_state_dict(first.state_dict())
    _train(parts, second, 13, 25)
    for one, other in zip(whole.parameters(), parts.parameters()):
        assert torch.equal(one, other)


def test_adamw_leaves_everything_on_a_bad_gradient() -> None:
    model = _model()
    optimizer = build_optimizer(model, OptimConfig(name="adamw"))
    _train(model, optimizer, 0, 3)
    before = [p.detach().clone() for p in model.parameters()]
    model[0].weight.grad = torch.full((4, 3), float("nan"))
    assert not optimizer.step(0.1).applied
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))


def test_adamw_refuses_a_state_of_other_parameters() -> None:
    state = build_optimizer(_model(), OptimConfig(name="adamw")).state_dict()
    other = build_optimizer(nn.Linear(3, 4), OptimConfig(name="adamw"))
    with pytest.raises(ValueError, match="same parameters"):
        other.load_state_dict(state)
