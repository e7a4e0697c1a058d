"""CTC head, torch's loss and its corners, and which utterances have no alignment."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dualasr_lib.core.config import from_dict
from dualasr_lib.model.heads.contract import HeadSizes
from dualasr_lib.model.heads.ctc import (
    CtcHead,
    CtcHeadConfig,
    CtcLossConfig,
    has_no_alignment,
    min_ctc_frames,
    torch_ctc_loss,
)


def draws(seed: int, batch: int = 50) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Short utterances and long texts of few tokens: about half have no alignment."""
    generator = torch.Generator().manual_seed(seed)
    lens = torch.randint(1, 12, (batch,), generator=generator)
    token_lens = torch.randint(0, 9, (batch,), generator=generator)
    tokens = torch.randint(1, 4, (batch, 8), generator=generator)
    log_probs = torch.randn(batch, 11, 4, generator=generator).log_softmax(dim=2)
    return log_probs, lens, tokens, token_lens


@pytest.mark.parametrize("seed", range(6))
def test_infinite_losses_are_exactly_those_without_alignment(seed: int) -> None:
    log_probs, lens, tokens, token_lens = draws(seed)
    infinite = F.ctc_loss(
        log_probs.transpose(0, 1), tokens, lens, token_lens, reduction="none"
    ).isposinf()
    assert torch.equal(has_no_alignment(lens, tokens, token_lens), infinite)
    assert 0 < int(infinite.sum()) < len(infinite)
    log_probs.requires_grad_()
    value = torch_ctc_loss(log_probs, lens, tokens, token_lens)
    (gradient,) = torch.autograd.grad(value.sum(), log_probs)
    assert torch.equal(value == 0, infinite)
    assert torch.equal(gradient.eq(0).all(dim=2).all(dim=1), infinite)


def test_frames_needed_by_trying_all_alignments() -> None:
    """The shortest label sequence over {blank, 1, 2} that collapses to the text."""
    shortest: dict[tuple[int, ...], int] = {}
    for size in range(6):
        for path in itertools.product(range(3), repeat=size):
            text = tuple(label for label, _ in itertools.groupby(path) if label)
            shortest.setdefault(text, size)
    for text, frames in shortest.items():
        tokens = torch.tensor([[*text, *[1] * (5 - len(text))]])  # padding repeats, and is ignored
        lens = torch.tensor([len(text)])
        assert min_ctc_frames(tokens, lens).tolist() == [frames]
        assert min_ctc_frames(tokens[:, : len(text)], lens).tolist() == [frames]
        limits = torch.tensor([max(frames - 1, 0), frames])
        both = has_no_alignment(limits, tokens.expand(2, -1), lens.expand(2))
        assert both.tolist() == [frames > 0, False]


@pytest.mark.parametrize("num_frames", [0, 1, 6])
def test_an_utterance_without_frames_loses_nothing(num_frames: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, num_frames, 5, generator=generator, requires_grad=True)
    lens, tokens = torch.tensor([0, 0, num_frames]), torch.tensor([[1, 2], [3, 3], [4, 4]])
    token_lens = torch.tensor([0, 2, min(1, num_frames)])
    value = torch_ctc_loss(x.log_softmax(dim=2), lens, tokens, token_lens)
    assert value[:2].tolist() == [0.0, 0.0]
    assert bool(value[2] > 0) == (num_frames > 0)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    assert gradient[:2].eq(0).all()
    assert bool(gradient[2].ne(0).any()) == (num_frames > 0)
    assert torch_ctc_loss(x.log_softmax(dim=2), lens, tokens[:, :0], 0 * token_lens).shape == (3,)


def test_head_keeps_one_tensor_of_the_vocabulary() -> None:
    head = CtcHead(CtcHeadConfig(dropout=0.1), HeadSizes(97, 8, 1))
    x, kept = torch.randn(2, 5, 8, requires_grad=True), {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.numel() == 2 * 5 * 97:
            kept[tensor.data_ptr()] = tensor.dtype
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        log_probs = head.frames(x)
        torch_ctc_loss(
            log_probs, torch.tensor([5, 4]), torch.ones(2, 1).long(), torch.ones(2).long()
        )
    assert list(kept.values()) == [torch.float32]


def test_head_gives_float32_log_probs_in_mixed_precision() -> None:
    head = CtcHead(CtcHeadConfig(dropout=0.0), HeadSizes(7, 8, 1))
    x = torch.randn(2, 5, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_probs = head.frames(x)
    assert log_probs.dtype == torch.float32
    torch.testing.assert_close(log_probs.exp().sum(dim=2), torch.ones(2, 5))
    torch.testing.assert_close(log_probs, head.frames(x), rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"delay_penalty": 0.1}, 'delay_penalty must be 0 unless implementation = "k2"'),
        ({"implementation": "k2", "delay_penalty": -0.1}, "delay_penalty must be >= 0"),
        ({"implementation": "k2", "beam": 0.0}, "beam must be > 0"),
        ({"implementation": "k2", "beam": float("nan")}, "beam must be > 0"),
        ({"implementation": "cudnn"}, "implementation must be one of"),
        ({"delay_penalti": 0.1}, "did you mean 'delay_penalty'"),
    ],
)
def test_config_refuses(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_dict(CtcLossConfig, values)
    assert CtcLossConfig(implementation="k2", delay_penalty=0.01).beam == 20.0
