"""Each rival of sp-KD against a slow float64 reference that goes frame by frame, value and
gradient."""

import pytest
import torch
from distillation_cases import (
    both,
    changed,
    decoder_of,
    gradients,
    make,
    pairs,
    random_views,
    slow_kl,
    slow_logit_kl,
    tensors,
)
from torch import Tensor

from dualasr_lib.model.distillation import BranchDims, BranchView, Widths
from dualasr_lib.model.pairing import Sequences


def _check(got: Tensor, expected: Tensor, *views: BranchView) -> None:
    assert float(expected.detach()) > 1e-3
    torch.testing.assert_close(got, expected)
    found, wanted = (_at_logits(gradients(loss, *views), views) for loss in (got, expected))
    for a, b in zip(found, wanted):
        torch.testing.assert_close(a, b)


def _at_logits(found: list[Tensor], views: tuple[BranchView, ...]) -> list[Tensor]:
    """Gradients at log-probabilities, taken on through the log-softmax that made them: a constant
    added to a whole distribution has no meaning there.
    """
    values = [x.detach() for view in views for x in tensors(view)]
    return [
        g - x.exp() * g.sum(dim=2, keepdim=True) if i % 2 else g  # every second is a distribution
        for i, (g, x) in enumerate(zip(found, values))
    ]


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("shift", [-1, 0, 2])
def test_logit_kl(shift: int, temperature: float) -> None:
    full, streaming = random_views(1)
    settings = {"method": "logit_kl", "shift": shift, "temperature": temperature}
    got = make(detach_teacher=False, **settings)(full, streaming)
    encoder = slow_logit_kl(full.encoder, streaming.encoder, shift, temperature)
    decoder = slow_logit_kl(decoder_of(full), decoder_of(streaming), 0, temperature)
    _check(got.encoder, encoder, full, streaming)
    _check(got.heads["attention"], decoder, full, streaming)


@pytest.mark.parametrize("shift", [0, 1])
def test_consistency(shift: int) -> None:
    full, streaming = random_views(2)
    distiller = make(
        method="consistency", direction="both", shift=shift, head_weights={}, temperature=2.0
    )
    expected = 0.5 * (
        slow_logit_kl(full.encoder.detach(), streaming.encoder, shift, 2.0)
        + slow_logit_kl(streaming.encoder.detach(), full.encoder, -shift, 2.0)
    )
    _check(distiller(full, streaming).encoder, expected, full, streaming)


def _slow_shifted(
    teacher: Sequences, student: Sequences, lags: range, over: str, temperature: float
) -> Tensor:
    """Mean, over the teacher's frames that have a partner, of the least or mean divergence."""
    per_lag = [pairs(teacher, student, lag) for lag in lags]
    losses = []
    for n, length in enumerate(teacher.lens):
        for t in range(int(length)):
            partners = [u for lag in per_lag for first, u in lag[n] if first == t]
            if not partners:
                continue
            each = torch.stack(
                [slow_kl(teacher.said[n, t], student.said[n, u], temperature) for u in partners]
            )
            losses.append(each.min() if over == "min" else each.mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("over", ["min", "mean"])
@pytest.mark.parametrize("max_shift", [0, 2, 9])
@pytest.mark.parametrize("direction", ["full_to_streaming", "streaming_to_full"])
def test_shifted_logit_kl(direction: str, max_shift: int, over: str) -> None:
    """9 frames are more than any utterance has; the streaming branch is late, whoever teaches."""
    full, streaming = random_views(3)
    distiller = make(
        method="logit_kl_shifted",
        direction=direction,
        head_weights={},
        detach_teacher=False,
        max_shift=max_shift,
        over_shifts=over,
        temperature=2.0,
    )
    teacher, student, lags = full.encoder, streaming.encoder, range(max_shift + 1)
    if direction == "streaming_to_full":
        teacher, student, lags = student, teacher, range(0, -max_shift - 1, -1)
    expected = _slow_shifted(teacher, student, lags, over, 2.0)
    _check(distiller(full, streaming).encoder, expected, full, streaming)


def test_shifted_logit_kl_forgives_what_comes_late() -> None:
    """A branch that says the same one frame late costs nothing, as long as it is not early."""
    full, _ = random_views(4)
    full = full._replace(encoder=full.encoder._replace(lens=full.encoder.lens - 1))
    said, lens = full.encoder.said, full.encoder.lens
    moved = full.encoder._replace(log_probs=said.roll(1, dims=1), lens=lens + 1)
    late = full._replace(encoder=moved)
    early = full._replace(encoder=full.encoder._replace(log_probs=said.roll(-1, dims=1)))
    distiller = make(method="logit_kl_shifted", head_weights={}, max_shift=1)
    assert float(distiller(full, late).encoder.detach()) == pytest.approx(0.0, abs=1e-12)
    assert float(distiller(full, early).encoder.detach()) > 0.1


def _slow_mse(teacher: Sequences, student: Sequences, lag: int, map_: torch.nn.Module) -> Tensor:
    losses = [
        (teacher.hidden[n, t] - map_(student.hidden[n, u])).pow(2).mean()
        for n, paired in enumerate(pairs(teacher, student, lag))
        for t, u in paired
    ]
    return torch.stack(losses).mean()


@pytest.mark.parametrize("shift", [-1, 0, 2])
@pytest.mark.parametrize("direction", ["full_to_streaming", "streaming_to_full"])
def test_mse_with_a_learnt_projection(direction: str, shift: int) -> None:
    full, streaming = random_views(5)
    distiller = make(method="mse", direction=direction, shift=shift, detach_teacher=False)
    got = distiller(full, streaming)
    sides = ((full.encoder, streaming.encoder), (decoder_of(full), decoder_of(streaming)))
    methods = (distiller.encoder, distiller.heads["attention"])
    for (teacher, student), method, loss, lag in zip(sides, methods, both(got), (shift, 0)):
        if direction == "streaming_to_full":
            teacher, student, lag = student, teacher, -lag
        projection = method[direction].projection
        assert projection.weight.shape == (teacher.hidden.shape[2], student.hidden.shape[2])
        expected = _slow_mse(teacher, student, lag, projection)
        _check(loss, expected, full, streaming)
        learnt = [torch.autograd.grad(x, projection.weight)[0] for x in (loss, expected)]
        torch.testing.assert_close(*learnt)


def test_mse_of_equal_widths_has_no_parameters() -> None:
    full, _ = random_views(6)
    dims = BranchDims(Widths(6, 6), {"attention": Widths(5, 5)})
    distiller = make(dims, method="mse")
    assert not list(distiller.parameters())
    other = changed(full, full.encoder.hidden + 0.5)
    assert float(distiller(full, other).encoder.detach()) == pytest.approx(0.25)
