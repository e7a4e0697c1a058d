"""Prediction network, its tables, and what a transducer hands to its loss."""

import pytest
import torch
from torch import Tensor

from dualasr_lib.core.config import from_dict
from dualasr_lib.model.transducer.additive import Text
from dualasr_lib.model.transducer.loss import View, transducer_losses
from dualasr_lib.model.transducer.network import PredictionNetwork, Transducer
from dualasr_lib.model.transducer.settings import TransducerConfig, TransducerLossConfig

SMALL = TransducerConfig(dim=8, joiner_dim=12)


def text_of(seed: int = 0) -> Text:
    tokens = torch.randint(1, 11, (3, 5), generator=torch.Generator().manual_seed(seed))
    return Text(tokens, torch.tensor([9, 4, 0]), torch.tensor([5, 0, 2]))


@pytest.mark.parametrize("context", [1, 2, 3])
def test_states_of_a_text_are_those_of_its_last_tokens(context: int) -> None:
    network, tokens = PredictionNetwork(11, 8, context), text_of().tokens
    states = network(tokens)
    assert states.shape == (3, 6, 8)
    for n in range(3):
        for said in range(6):
            before = [0] * context + tokens[n, :said].tolist()
            alone = network.of_contexts(torch.tensor([before[-context:]]))
            torch.testing.assert_close(states[n, said], alone[0])


def test_convolution_is_the_published_one() -> None:
    """Groups of four channels, no bias, the older token first; blank is trained like any other."""
    network = PredictionNetwork(11, 8, 2)
    state = network.of_contexts(torch.tensor([[3, 7]]))[0]
    for channel in range(8):
        group = slice(channel // 4 * 4, channel // 4 * 4 + 4)
        older, latest = (network.embedding.weight[token, group] for token in (3, 7))
        kernel = network.conv.weight[channel]
        expected = (kernel[:, 0] * older + kernel[:, 1] * latest).sum().relu()
        torch.testing.assert_close(state[channel], expected)
    assert network.conv.bias is None
    assert network.embedding.padding_idx is None
    network(torch.tensor([[3, 7]])).sum().backward()
    assert network.embedding.weight.grad is not None
    assert network.embedding.weight.grad[0].ne(0).any()


@pytest.mark.parametrize("context", [1, 2, 3])
def test_tables_equal_the_network(context: int) -> None:
    network = PredictionNetwork(11, 8, context)
    tables = network.fold()
    assert tables.shape == (context, 11, 8)
    grid = torch.cartesian_prod(*[torch.arange(11)] * context).view(-1, context)
    folded = sum(tables[k, grid[:, k]] for k in range(context))
    assert isinstance(folded, Tensor)
    torch.testing.assert_close(folded.relu(), network.of_contexts(grid))


def test_ids_below_zero_stand_for_blank() -> None:
    network = PredictionNetwork(11, 8, 2)
    contexts = torch.tensor([[-1, 0], [-1, -1], [0, 0]])
    states = network.of_contexts(contexts)
    assert torch.equal(states[0], states[2])
    assert torch.equal(states[1], states[2])


def test_initial_scales_are_a_quarter() -> None:
    torch.manual_seed(0)
    model = Transducer(64, 101, TransducerConfig())
    for layer, inputs in (
        (model.joiner.encoder, 64),
        (model.joiner.prediction, 512),
        (model.simple_acoustic, 64),
        (model.simple_language, 512),
    ):
        assert float(layer.weight.abs().max()) == pytest.approx(0.25 * inputs**-0.5, rel=0.01)
    assert float(model.joiner.output.weight.abs().max()) == pytest.approx(512**-0.5, rel=0.01)


def weights_of(view: View) -> Tensor:
    losses = transducer_losses([view], text_of(), TransducerLossConfig(prune_range=3))[0]
    return (losses.simple + losses.pruned).sum()


@pytest.mark.parametrize("junk", [float("nan"), float("inf"), 1e4])
def test_padding_reaches_no_gradient(junk: float) -> None:
    torch.manual_seed(0)
    model, text = Transducer(6, 11, SMALL), text_of()
    clean = torch.randn(3, 9, 6)
    dirty, tokens = clean.clone(), text.tokens.clone()
    for n in range(3):
        dirty[n, int(text.lens[n]) :] = junk
        tokens[n, int(text.token_lens[n]) :] = -1
    found = []
    for h, some in ((clean, text), (dirty, text._replace(tokens=tokens))):
        h.requires_grad_()
        total = weights_of(model.view(h, some))
        found.append([total, *torch.autograd.grad(total, [h, *model.parameters()])])
    for expected, got in zip(*found):
        assert torch.equal(expected, got)
        assert got.isfinite().all()


def test_view_is_what_the_modules_say() -> None:
    torch.manual_seed(0)
    model, text, h = Transducer(6, 11, SMALL), text_of(), torch.randn(3, 9, 6)
    view = model.view(h, text)
    logits = model.joiner(view.encoder[0, 3], view.prediction[0, 2])
    state = model.prediction.of_contexts(text.tokens[0, None, :2])[0]
    hidden = torch.tanh(model.joiner.encoder(h[0, 3]) + model.joiner.prediction(state))
    torch.testing.assert_close(logits, model.joiner.output(hidden))
    torch.testing.assert_close(
        torch.nn.functional.linear(*view.acoustic)[0], model.simple_acoustic(h[0])
    )


def test_learns_a_toy() -> None:
    """Frames that show their token: after some steps greedy search reads the text."""
    torch.manual_seed(0)
    model = Transducer(11, 11, TransducerConfig(dim=16, joiner_dim=16))
    tokens = torch.randint(1, 11, (8, 4))
    h = torch.zeros(8, 12, 11)
    for u in range(4):
        h[torch.arange(8), 3 * u + 1, tokens[:, u]] = 3.0
    text = Text(tokens, torch.full((8,), 12), torch.full((8,), 4))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(150):
        weights = TransducerLossConfig(warm_up=40).weights(step)
        (losses,) = transducer_losses([model.view(h, text)], text, TransducerLossConfig())
        loss = (weights.simple * losses.simple + weights.pruned * losses.pruned).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(losses.pruned.mean()) < 0.5
    for n in range(8):
        said = [0, 0]
        for frame in h[n]:
            state = model.joiner.prediction(model.prediction.of_contexts(torch.tensor([said[-2:]])))
            best = int(model.joiner(model.joiner.encoder(frame), state[0]).argmax())
            said += [best] if best else []
        assert said[2:] == tokens[n].tolist()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dim": 6}, "multiple of 4"),
        ({"dim": 0}, "multiple of 4"),
        ({"joiner_dim": 0}, "at least 1"),
        ({"context": 0}, "at least 1"),
        ({"contex": 2}, "did you mean 'context'"),
    ],
)
def test_config_refuses(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_dict(TransducerConfig, values)
