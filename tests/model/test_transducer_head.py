"""The transducer as a head: what it gives to the joint model, distillation, pictures and scores."""

import pytest
import torch
from torch import Tensor

from dualasr_lib.model.encoder import Encoded
from dualasr_lib.model.heads.contract import HeadSizes, NbestTexts, Targets
from dualasr_lib.model.heads.transducer import TransducerHead, TransducerHeadConfig
from dualasr_lib.model.transducer.additive import Text
from dualasr_lib.model.transducer.full_sum import Hypotheses, score_texts
from dualasr_lib.model.transducer.loss import AS_IT_COMES, Early, transducer_losses
from dualasr_lib.model.transducer.settings import TransducerConfig, TransducerLossConfig
from dualasr_lib.model.transducer.states import StateKind
from dualasr_lib.model.zipformer.scheduled import set_step

SIZES = HeadSizes(vocab_size=11, dim=6, sos_eos=1)
LOSS = TransducerLossConfig(warm_up=10, delay_penalty=0.1, delay_from=20, fast_emit=0.5)


def head_of(states: StateKind = "mean") -> TransducerHead:
    torch.manual_seed(0)
    small = TransducerConfig(dim=8, joiner_dim=12)
    return TransducerHead(TransducerHeadConfig(sizes=small, loss=LOSS, states=states), SIZES)


def heard(seed: int = 0) -> tuple[Encoded, Targets]:
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(3, 9, 6, generator=generator, requires_grad=True)
    tokens = torch.randint(1, 11, (3, 4), generator=generator)
    return Encoded(h, torch.tensor([9, 5, 0])), Targets(tokens, torch.tensor([4, 2, 1]))


@pytest.mark.parametrize("step", [0, 5, 10, 19, 20])
def test_loss_follows_the_schedule_and_only_streaming_is_early(step: int) -> None:
    head, (states, targets) = head_of(), heard()
    set_step(head, step)
    readings = TransducerHead.joined(
        {"streaming": head, "full": head},
        {branch: head(states, targets) for branch in ("streaming", "full")},
    )
    text = Text(targets.tokens, states.lens, targets.lens)
    weights = LOSS.weights(step)
    for branch, early in (
        ("streaming", Early(LOSS.delay_penalty_at(step), 0.5)),
        ("full", AS_IT_COMES),
    ):
        view = head.transducer.view(states.h, text, early)
        (losses,) = transducer_losses([view], text, LOSS)
        expected = (weights.simple * losses.simple + weights.pruned * losses.pruned).sum()
        got = head.loss(readings[branch])
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, expected.float())
        for mine, alone in zip(
            torch.autograd.grad(got, states.h, retain_graph=True),
            torch.autograd.grad(expected, states.h),
        ):
            torch.testing.assert_close(mine, alone)
        assert head.impossible(readings[branch]).tolist() == [False, False, True]


def test_a_loss_that_starts_later() -> None:
    small = TransducerConfig(dim=8, joiner_dim=12)
    loss = TransducerLossConfig(warm_up=10, start=7)
    torch.manual_seed(0)
    head = TransducerHead(TransducerHeadConfig(sizes=small, loss=loss), SIZES)
    states, targets = heard()
    reading = TransducerHead.joined({"full": head}, {"full": head(states, targets)})["full"]
    done = reading.done
    for step in (0, 6, 7, 12, 17, 1000):
        set_step(head, step)
        weights = loss.weights(step)
        expected = (weights.simple * done.simple + weights.pruned * done.pruned).sum()
        torch.testing.assert_close(head.loss(reading), expected.float())
        assert (step < 7) == (float(head.loss(reading)) == 0.0)


@pytest.mark.parametrize("kind", ["mean", "best", "prediction"])
def test_states_and_picture(kind: StateKind) -> None:
    head, (states, targets) = head_of(kind), heard()
    reading = TransducerHead.joined({"full": head}, {"full": head(states, targets)})["full"]
    view = head.view(reading)
    assert view.hidden.shape == (3, 5, head.state_dim or 0)
    assert view.log_probs is None
    assert view.lens.tolist() == [5, 3, 2]
    picture = head.pictures(reading)["occupancy"].values
    assert picture.shape == (5, 9)
    torch.testing.assert_close(picture.sum(dim=0), torch.ones(9))  # every frame has one blank
    assert (picture[:, -1].argmax() == 4) and not picture.requires_grad


def slow_greedy(head: TransducerHead, h: Tensor) -> tuple[int, ...]:
    joiner, said = head.transducer.joiner, [0, 0]
    for frame in joiner.encoder(h):
        state = head.transducer.prediction.of_contexts(torch.tensor([said[-2:]]))
        best = int(joiner(frame, joiner.prediction(state)[0]).argmax())
        said += [best] if best else []
    return tuple(said[2:])


def test_texts_are_those_of_a_search_one_by_one() -> None:
    head = head_of()
    torch.nn.init.normal_(head.transducer.joiner.output.weight)  # or blank wins everywhere
    states, _ = heard(1)
    texts = head.texts(states)
    assert texts == [slow_greedy(head, h[:n]) for h, n in zip(states.h, states.lens.tolist())]
    assert len(texts[0]) > 0 and texts[2] == ()


def test_scores_are_full_sums() -> None:
    head, (states, _) = head_of(), heard()
    texts = NbestTexts.padded([[1, 2], [], [3, 3, 4], [5]], [0, 0, 1, 2])
    expected = score_texts(head.transducer, states.h, states.lens, Hypotheses(*texts))
    assert torch.equal(head.score(states, texts), expected)
    assert expected.isinf().tolist() == [False, False, False, True]


def test_no_branch_and_published_steps() -> None:
    assert TransducerHead.joined({}, {}) == {}
    assert TransducerHead.counts_published_steps
    assert not any("step" in name for name in head_of().state_dict())
