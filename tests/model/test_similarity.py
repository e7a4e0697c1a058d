"""sp-KD against a slow float64 reference that follows the paper's formulas item by item; the edge
cases of its matrices."""

import pytest
import torch
from distillation_cases import (
    both,
    changed,
    decoder_of,
    gradients,
    make,
    random_views,
    slow_frames,
    slow_utterances,
)
from torch import Tensor

from dualasr_lib.model.distillation import BranchView
from dualasr_lib.model.pairing import Sequences
from dualasr_lib.model.similarity import mean_over_time, similarity, similarity_loss


def sides(view: BranchView) -> tuple[Sequences, Sequences]:
    return view.encoder, decoder_of(view)


@pytest.mark.parametrize("centre", [False, True])
def test_utterance_items(centre: bool) -> None:
    full, streaming = random_views(1)
    got = make(centre=centre, detach_teacher=False)(full, streaming)
    for loss, part in zip(both(got), zip(sides(full), sides(streaming))):
        expected = slow_utterances(*part, centre)
        assert float(expected.detach()) > 1e-3
        torch.testing.assert_close(loss, expected)
        for a, b in zip(gradients(loss, full, streaming), gradients(expected, full, streaming)):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("shift", [-2, 0, 1])
@pytest.mark.parametrize("centre", [False, True])
def test_frame_items(centre: bool, shift: int) -> None:
    full, streaming = random_views(2)
    got = make(items="frame", centre=centre, shift=shift, detach_teacher=False)(full, streaming)
    for loss, part, lag in zip(both(got), zip(sides(full), sides(streaming)), (shift, 0)):
        expected = slow_frames(*part, centre, lag)
        assert float(expected.detach()) > 1e-3
        torch.testing.assert_close(loss, expected)
        for a, b in zip(gradients(loss, full, streaming), gradients(expected, full, streaming)):
            torch.testing.assert_close(a, b)


def test_a_shift_finds_a_lag() -> None:
    """The streaming states are the full ones, two frames late: with shift 2 nothing is left."""
    full, _ = random_views(3)
    hidden = full.encoder.hidden.detach()
    late = changed(full, torch.cat([torch.ones_like(hidden[:, :2]), hidden[:, :-2]], dim=1))
    assert float(make(items="frame", shift=2)(full, late).encoder.detach()) == 0.0
    assert float(make(items="frame", shift=0)(full, late).encoder.detach()) > 0.01
    assert float(make(items="frame", shift=-2)(late, full).encoder.detach()) == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    x, y = torch.randn(1, 30, 16).to(dtype), torch.randn(1, 30, 8).to(dtype)
    valid = torch.ones(1, 30, dtype=torch.bool)
    got = similarity_loss(x, y, valid, centre=False)
    assert got.dtype == torch.float32
    expected = similarity_loss(x.double(), y.double(), valid, centre=False)
    assert float(got) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("scale", [1e-15, 1e15])
@pytest.mark.parametrize("centre", [False, True])
def test_scale_means_nothing(scale: float, centre: bool) -> None:
    x, valid = torch.randn(1, 6, 3), torch.ones(1, 6, dtype=torch.bool)
    got = similarity(x * scale, valid, centre)
    torch.testing.assert_close(got, similarity(x, valid, centre), rtol=1e-5, atol=1e-6)


def _loss_and_gradient(x: Tensor, y: Tensor, valid: Tensor, centre: bool) -> tuple[Tensor, Tensor]:
    y = y.clone().requires_grad_()
    loss = similarity_loss(x, y, valid, centre)
    loss.backward()
    assert y.grad is not None
    return loss.detach(), y.grad


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("kind", ["equal", "different", "zero teacher", "zero student"])
def test_one_item_gives_exactly_nothing(kind: str, centre: bool) -> None:
    x = torch.randn(1, 1, 7)
    y = x.clone() if kind == "equal" else torch.randn(1, 1, 7)
    x, y = x * (kind != "zero teacher"), y * (kind != "zero student")
    loss, gradient = _loss_and_gradient(x, y, torch.ones(1, 1, dtype=torch.bool), centre)
    assert float(loss) == 0.0 and torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("rows", ["one zero", "all zero", "all equal", "all but one zero"])
def test_degenerate_rows_have_finite_gradients(rows: str, centre: bool) -> None:
    x, y = torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    y[0] = {
        "one zero": y[0] * torch.tensor([1, 1, 0, 1, 1])[:, None],
        "all zero": torch.zeros(5, 4),
        "all equal": y[0, :1].expand(5, 4).clone(),
        "all but one zero": y[0] * torch.tensor([0, 0, 1, 0, 0])[:, None],
    }[rows]
    loss, gradient = _loss_and_gradient(x, y, torch.ones(2, 5, dtype=torch.bool), centre)
    assert torch.isfinite(loss) and torch.isfinite(gradient).all()
    assert float(gradient.abs().max()) < 10.0, "a row that is only rounding must not explode"


def test_a_row_of_rounding_errors_is_zero() -> None:
    """The mean of equal items is not quite the item, and what is left has no direction."""
    torch.manual_seed(0)
    x = torch.randn(1, 1, 50).expand(1, 7, 50)
    assert bool((x - x.sum(dim=1, keepdim=True) / 7).any())
    gram = similarity(x, torch.ones(1, 7, dtype=torch.bool), centre=True)
    assert torch.equal(gram, torch.zeros_like(gram))


def test_empty_utterances_change_nothing() -> None:
    x, y = torch.randn(2, 5, 4), torch.randn(2, 5, 3)
    valid = torch.tensor([[True] * 5, [True, True, True, False, False]])
    alone, with_empty = (
        similarity_loss(
            *(torch.cat([v, torch.full((n, 5, v.shape[2]), torch.nan)]) for v in (x, y)),
            torch.cat([valid, torch.zeros(n, 5, dtype=torch.bool)]),
            centre=False,
        )
        for n in (0, 2)
    )
    torch.testing.assert_close(with_empty, alone)
    nothing, gradient = _loss_and_gradient(x, y, torch.zeros_like(valid), centre=True)
    assert float(nothing) == 0.0 and torch.equal(gradient, torch.zeros_like(gradient))
    none = similarity_loss(x[:, :0], y[:, :0], valid[:, :0], centre=False)
    assert float(none) == 0.0


def test_an_empty_utterance_is_no_item() -> None:
    """With utterance items too: its pooled vector would be a row of zeros."""
    full, streaming = random_views(4)
    kept = torch.tensor([1, 1, 0, 1])

    def shorter(side: Sequences) -> Sequences:
        return side._replace(lens=side.lens * kept)

    def rest(side: Sequences) -> Sequences:
        return Sequences(*(x[kept > 0] for x in (side.hidden, side.said, side.lens)))

    views = (full, streaming)
    with_empty = [view._replace(encoder=shorter(view.encoder)) for view in views]
    without = [
        BranchView(rest(view.encoder), {"attention": rest(decoder_of(view))}) for view in views
    ]
    got, expected = make()(*with_empty), make()(*without)
    torch.testing.assert_close(got.encoder, expected.encoder)


def test_mean_over_time() -> None:
    x = torch.randn(3, 4, 2)
    x[1, 2:], x[2] = torch.nan, torch.nan
    got = mean_over_time(x, torch.tensor([4, 2, 0]))
    expected = torch.stack([x[0].mean(0), x[1, :2].mean(0), torch.zeros(2)])
    torch.testing.assert_close(got, expected)
