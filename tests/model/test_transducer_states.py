"""States of texts for distillation, against loops over cells."""

from typing import get_args

import pytest
import torch
from torch import Tensor
from transducer_cases import Batch, draw_batch, leaves, view_of

from dualasr_lib.model.transducer.loss import Alignment, TransducerLosses, transducer_losses
from dualasr_lib.model.transducer.settings import TransducerLossConfig
from dualasr_lib.model.transducer.states import StateKind, text_states

KINDS = get_args(StateKind)


def losses_of(batch: Batch, prune_range: int = 3) -> TransducerLosses:
    config = TransducerLossConfig(prune_range=prune_range)
    return transducer_losses([view_of(batch)], batch.text, config)[0]


def slow_states(batch: Batch, losses: TransducerLosses, kind: StateKind) -> Tensor:
    """By the definition, cell by cell."""
    states = torch.zeros_like(batch.prediction)
    alignment: Alignment = losses.alignment
    for n in range(9):
        said, frames = int(batch.text.token_lens[n]), int(batch.text.lens[n])
        if bool(losses.impossible[n]) or not frames:
            continue
        for u in range(said + 1):
            shares, hidden = [], []
            for t in range(frames):
                for r, text in enumerate(alignment.texts[n, t].tolist()):
                    if text == u:
                        of = alignment.symbol if u < said else alignment.blank
                        shares.append(float(of[n, t, r]))
                        hidden.append(torch.tanh(batch.encoder[n, t] + batch.prediction[n, u]))
            if kind == "mean":
                total = sum(shares)
                states[n, u] = sum(s / total * h for s, h in zip(shares, hidden))  # type: ignore[call-overload]
            else:
                states[n, u] = hidden[shares.index(max(shares))]
    return states


@pytest.mark.parametrize("kind", ["mean", "best"])
@pytest.mark.parametrize("prune_range", [2, 3, 7])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_definition(seed: int, prune_range: int, kind: StateKind) -> None:
    batch = draw_batch(seed)
    inputs = leaves(batch)
    losses = losses_of(batch, prune_range)
    states = text_states(view_of(batch), batch.text, losses.alignment, kind)
    expected = slow_states(batch, losses, kind)
    torch.testing.assert_close(states, expected)
    direction = torch.randn(states.shape, generator=torch.Generator().manual_seed(seed)).double()
    for mine, slow in zip(
        torch.autograd.grad((states * direction).sum(), inputs[2:4]),
        torch.autograd.grad((expected * direction).sum(), inputs[2:4]),
    ):
        torch.testing.assert_close(mine, slow)


def test_prediction_is_the_network_s_states() -> None:
    batch = draw_batch(0)
    states = text_states(view_of(batch), batch.text, losses_of(batch).alignment, "prediction")
    for n in range(9):
        size = int(batch.text.token_lens[n]) + 1
        assert torch.equal(states[n, :size], batch.p[n, :size])
        assert states[n, size:].eq(0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_padding_and_nan_change_nothing(kind: StateKind) -> None:
    clean, dirty = (draw_batch(1, dtype=torch.float32) for _ in range(2))
    for n in range(9):
        frames, said = int(dirty.text.lens[n]), int(dirty.text.token_lens[n])
        dirty.encoder[n, frames:] = torch.nan
        dirty.prediction[n, said + 1 :] = torch.nan
        dirty.p[n, said + 1 :] = torch.nan
    results = []
    for batch in (clean, dirty):
        inputs = leaves(batch)[1:4]
        states = text_states(view_of(batch), batch.text, losses_of(batch).alignment, kind)
        gradients = torch.autograd.grad(states.square().sum(), inputs, allow_unused=True)
        results.append([states, *(g for g in gradients if g is not None)])
    for expected, got in zip(*results):
        assert torch.equal(expected, got)
    assert results[1][0].isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_float32_inside_autocast(kind: StateKind) -> None:
    batch = draw_batch(2, dtype=torch.float32)
    half = batch._replace(encoder=batch.encoder.bfloat16(), prediction=batch.prediction.bfloat16())
    half = half._replace(p=batch.p.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = text_states(view_of(half), half.text, losses_of(half).alignment, kind)
    assert states.dtype == torch.float32


def test_no_frames_and_no_tokens() -> None:
    batch = draw_batch(3)
    empty = batch._replace(
        h=batch.h[:, :0],
        encoder=batch.encoder[:, :0],
        p=batch.p[:, :1],
        prediction=batch.prediction[:, :1],
        text=batch.text._replace(
            tokens=batch.text.tokens[:, :0],
            lens=torch.zeros(9).long(),
            token_lens=torch.zeros(9).long(),
        ),
    )
    for kind in KINDS:
        states = text_states(view_of(empty), empty.text, losses_of(empty).alignment, kind)
        assert states.shape[:2] == (9, 1)


def test_unknown_kind() -> None:
    batch = draw_batch(4)
    with pytest.raises(ValueError, match="kind must be one of"):
        text_states(view_of(batch), batch.text, losses_of(batch).alignment, "worst")  # type: ignore[arg-type]
