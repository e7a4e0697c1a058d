"""The training aids of the front end: what each does to outputs and gradients."""

from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualasr_lib.model.zipformer.activations import SWOOSH_R, swoosh
from dualasr_lib.model.zipformer.regularise import Balancer, Whiten
from dualasr_lib.model.zipformer.scheduled import Scheduled, set_step
from dualasr_lib.model.zipformer.subsampling import ConvSubsampling, SubsamplingConfig
from dualasr_lib.model.zipformer.training_aids import FrontAids

CPU = torch.device("cpu")
NONE = FrontAids(**{field.name: False for field in fields(FrontAids)})


def front(aids: FrontAids, dropout: float = 0.0) -> ConvSubsampling:
    torch.manual_seed(0)
    config = SubsamplingConfig(channels=(3, 4, 6), dropout=dropout, aids=aids)
    module = ConvSubsampling(config, num_features=20, dim=8)
    for part in module.modules():  # everything acts, in every step
        if isinstance(part, (Balancer, Whiten)):
            part.prob = Scheduled((0, 1.0), saved=False)
        if isinstance(part, Whiten):
            part.limit = Scheduled((0, 1.0), saved=False)
    return module


def heard(module: ConvSubsampling, batch: int = 2) -> Tensor:
    torch.manual_seed(1)
    x = torch.randn(batch, 40, 20) * 3.5 - 6.0
    return module.step(x, module.init_state(batch, CPU))[0]


def gradients(module: ConvSubsampling, batch: int = 2) -> dict[str, Tensor]:
    y = heard(module, batch)
    torch.manual_seed(2)
    names, parameters = zip(*module.named_parameters())
    return dict(zip(names, torch.autograd.grad((y * torch.randn_like(y)).sum(), parameters)))


@pytest.mark.parametrize("scale", [1.0, 0.2])
@pytest.mark.parametrize("channel_dim", [1, 3])
def test_swoosh_with_a_balancer_equals_the_two_modules(scale: float, channel_dim: int) -> None:
    torch.manual_seed(0)
    u = (3.0 * torch.randn(5, 30, 4, 6) + 2.0).requires_grad_()
    balancer = Balancer(
        u.shape[channel_dim], channel_dim, positive=(0.05, 0.6), absolute=(0.2, 1.0), prob=1.0,
        grad_scale=0.3,
    )  # fmt: skip
    incoming = torch.randn_like(u)
    x = balancer(u + SWOOSH_R.shift)
    slow = F.softplus(x - 1.0) - 0.08 * x - 0.313261687
    (expected,) = torch.autograd.grad(slow, u, incoming)
    balancer.origin = SWOOSH_R.shift
    fused = swoosh(u, SWOOSH_R, balancer.draw(4), scale)
    (got,) = torch.autograd.grad(fused, u, incoming)
    (plain,) = torch.autograd.grad(swoosh(u, SWOOSH_R), u, incoming)
    torch.testing.assert_close(fused, slow, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got, scale * expected, rtol=1e-3, atol=1e-4)
    assert float((expected - plain).norm() / plain.norm()) > 0.05


def test_the_block_starts_as_an_identity() -> None:
    """With its last layer set to zero the output is all but the same; a full-size one matters."""
    for aids, largest, smallest in ((FrontAids(), 0.02, 0.0), (NONE, 1.0, 0.05)):
        module = front(aids).eval()
        with torch.no_grad():
            before = heard(module)
            module.reduce.weight.zero_()
            module.reduce.bias.zero_()
            change = float((heard(module) - before).norm() / before.norm())
        assert smallest <= change < largest


def test_aids_change_gradients_in_training_and_outputs_never() -> None:
    aids = replace(FrontAids(), drop_block=False)
    for dropout in (0.0, 0.3):
        with_aids = front(aids, dropout)
        without = front(replace(NONE, identity_start=True), dropout)
        assert torch.equal(heard(with_aids.eval()), heard(without.eval()))
    with_aids, without = front(aids), front(replace(NONE, identity_start=True))
    assert torch.equal(heard(with_aids.train()), heard(without.train()))
    ours, plain = gradients(with_aids), gradients(without)
    assert all(not torch.allclose(ours[n], plain[n], rtol=1e-3) for n in ours if "weight" in n)


@pytest.mark.parametrize("name", [field.name for field in fields(FrontAids)])
def test_each_aid_acts_by_itself(name: str) -> None:
    """Alone it changes the start, the outputs in training, or gradients; nothing else does."""
    dropout = 0.1 if name == "early_dropout" else 0.0
    module = front(replace(NONE, **{name: True}), dropout).train()
    plain = front(NONE, dropout).train()
    weights = dict(plain.named_parameters())
    same_start = all(torch.equal(p, weights[n]) for n, p in module.named_parameters())
    assert same_start == (name != "identity_start")
    outputs = torch.equal(heard(module, 40), heard(plain, 40))
    assert outputs == (name not in ("identity_start", "drop_block", "early_dropout"))
    ours, theirs = gradients(module, 40), gradients(plain, 40)
    assert any(not torch.equal(ours[n], theirs[n]) for n in ours)


def test_scaled_gradient_reaches_the_first_convolution_only() -> None:
    ours, plain = gradients(front(replace(NONE, scale_gradient=True))), gradients(front(NONE))
    for name, gradient in plain.items():
        factor = 0.2 if name.startswith("first.") else 1.0
        torch.testing.assert_close(ours[name], factor * gradient)


def test_dropped_blocks_follow_the_published_schedule() -> None:
    """Where the block is left out of an utterance, its output is that of an identity."""
    module = front(replace(NONE, drop_block=True)).train()
    block: list[Tensor] = []
    module.out_projection.register_forward_hook(lambda _, inputs, __: block.append(inputs[0]))
    with torch.no_grad():
        heard(module, 200)
        kept = block.pop()
        weight, bias = module.reduce.weight.clone(), module.reduce.bias.clone()
        nn.init.zeros_(module.reduce.weight), nn.init.zeros_(module.reduce.bias)
        heard(module, 200)
        identity = block.pop()
        module.reduce.weight.copy_(weight), module.reduce.bias.copy_(bias)

        def share() -> float:
            heard(module, 200)
            return float((block.pop() == identity).flatten(1).all(1).float().mean())

        assert bool((kept != identity).any())
        assert abs(share() - 0.2) < 0.09
        set_step(module, 20_000)
        assert share() < 0.06
        assert bool((heard(module.eval()) == heard(module.eval())).all())


def test_early_dropout_falls_to_the_chosen_one() -> None:
    module = front(replace(NONE, early_dropout=True), dropout=0.1)
    rates = []
    for step in (0, 10_000, 20_000, 40_000):
        set_step(module, step)
        rates.append(module.dropout.now())
    assert rates == pytest.approx([0.3, 0.2, 0.1, 0.1])
    assert front(NONE, dropout=0.1).dropout.now() == 0.1
    assert front(FrontAids(), dropout=0.0).dropout.now() == 0.0
    assert front(FrontAids(), dropout=0.4).dropout.now() == 0.5


def test_aids_are_not_in_a_checkpoint() -> None:
    assert front(FrontAids()).state_dict().keys() == front(NONE).state_dict().keys()
