"""The CTC loss of k2 against torch's, value and gradient, and what the delay penalty does."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("k2")

from dualasr_lib.lattice.ctc_loss import k2_ctc_loss


def torch_loss(log_probs: Tensor, lens: Tensor, tokens: Tensor, token_lens: Tensor) -> Tensor:
    return F.ctc_loss(
        log_probs.transpose(0, 1), tokens, lens, token_lens, reduction="none", zero_infinity=True
    )


def case(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Lengths in no order, repeats, an empty text."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, 30, 6, generator=generator)
    tokens = torch.randint(1, 4, (5, 8), generator=generator)
    lens = torch.tensor([17, 30, 9, 30, 24])
    return logits, lens, tokens, torch.tensor([5, 8, 0, 3, 6])


@pytest.mark.parametrize("seed", range(5))
def test_equals_torch(seed: int) -> None:
    logits, lens, tokens, token_lens = case(seed)
    gradients = []
    values = []
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5])  # each utterance's gradient is told apart
    for loss in (k2_ctc_loss, torch_loss):
        x = logits.clone().requires_grad_()
        value = loss(x.log_softmax(dim=2), lens, tokens, token_lens)
        (value * weights).sum().backward()
        values.append(value.detach())
        gradients.append(x.grad)
    assert torch.allclose(values[0], values[1], rtol=1e-5)
    assert gradients[0] is not None
    assert gradients[1] is not None
    difference = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
    assert difference < 1e-3
    assert (tokens[:, 1:] == tokens[:, :-1]).any()


def test_impossible_and_empty_utterances_give_zero_without_gradient() -> None:
    logits, _, tokens, _ = case(0)
    tokens[0] = 1  # eight equal tokens need 15 frames
    lens = torch.tensor([14, 30, 0, 0, 24])
    token_lens = torch.tensor([8, 8, 0, 3, 6])
    x = logits.clone().requires_grad_()
    value = k2_ctc_loss(x.log_softmax(dim=2), lens, tokens, token_lens)
    assert value[[0, 2, 3]].tolist() == [0.0, 0.0, 0.0]
    assert (value[[1, 4]] > 0).all()
    value.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad[[0, 2, 3]].eq(0).all()
    assert x.grad[[1, 4]].ne(0).any()


def test_nothing_to_do() -> None:
    x = torch.zeros(2, 3, 4, requires_grad=True)
    value = k2_ctc_loss(x, torch.zeros(2).long(), torch.ones(2, 1).long(), torch.ones(2).long())
    assert value.tolist() == [0.0, 0.0]
    value.sum().backward()


def test_padding_decides_nothing() -> None:
    logits, lens, tokens, token_lens = case(3)
    changed, other = logits.clone(), tokens.clone()
    changed[0, 17:] = torch.nan
    other[0, 5:] = 5
    expected = k2_ctc_loss(logits.log_softmax(dim=2), lens, tokens, token_lens)
    assert torch.equal(k2_ctc_loss(changed.log_softmax(dim=2), lens, other, token_lens), expected)


def test_delay_penalty_favours_early_emission() -> None:
    """With flat log-probs the gradient of a token's column shows when the alignments emit it."""
    flat = torch.full((1, 20, 3), 1 / 3).log()

    def mean_frame(delay_penalty: float) -> float:
        x = flat.clone().requires_grad_()
        one = torch.tensor([[1]])
        k2_ctc_loss(x, torch.tensor([20]), one, torch.tensor([1]), delay_penalty).sum().backward()
        assert x.grad is not None
        occupation = -x.grad[0, :, 1]
        return float((occupation * torch.arange(20)).sum() / occupation.sum())

    assert mean_frame(0.2) < mean_frame(0.05) < mean_frame(0.0) - 0.1


def test_refusals() -> None:
    logits, lens, tokens, token_lens = case(0)
    with pytest.raises(ValueError, match="beam"):
        k2_ctc_loss(logits, lens, tokens, token_lens, beam=0.0)
    with pytest.raises(ValueError, match="delay_penalty"):
        k2_ctc_loss(logits, lens, tokens, token_lens, delay_penalty=-1.0)
