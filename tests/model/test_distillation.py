"""What holds for every distillation method: who gets gradients, what padding may do, when it
starts, which configurations make sense; and the pictures of similarity matrices."""

import math
import typing
from typing import Any

import pytest
import torch
from distillation_cases import (
    DIMS,
    both,
    changed,
    damaged,
    decoder_of,
    gradients,
    make,
    random_views,
    slow_logit_kl,
    tensors,
)
from torch import Tensor

from dualasr_lib.core.config import from_dict, to_dict
from dualasr_lib.model import distillation
from dualasr_lib.model.distillation import (
    METHODS,
    BranchDims,
    BranchView,
    DistillationConfig,
    Widths,
    build_distiller,
    similarity_images,
)
from dualasr_lib.model.pairing import Sequences
from dualasr_lib.model.zipformer.scheduled import set_step

CASES: dict[str, dict[str, Any]] = {
    "sp_kd utterance": {},
    "sp_kd utterance centred": {"centre": True},
    "sp_kd frame": {"items": "frame", "shift": 1},
    "sp_kd frame centred": {"items": "frame", "shift": -1, "centre": True},
    "logit_kl": {"method": "logit_kl", "shift": 1, "temperature": 2.0},
    "logit_kl_shifted min": {"method": "logit_kl_shifted", "head_weights": {}},
    "logit_kl_shifted mean": {
        "method": "logit_kl_shifted",
        "over_shifts": "mean",
        "head_weights": {},
    },
    "mse": {"method": "mse", "shift": -1},
    "consistency": {"method": "consistency", "direction": "both", "head_weights": {}},
}
"""Every method in every kind."""

each_case = pytest.mark.parametrize("settings", CASES.values(), ids=CASES.keys())
each_one_way_case = pytest.mark.parametrize(
    "settings",
    [settings for settings in CASES.values() if "direction" not in settings],
    ids=[name for name, settings in CASES.items() if "direction" not in settings],
)


def test_every_method_is_tried_here() -> None:
    named = typing.get_args(distillation.MethodName)
    assert {settings.get("method", "sp_kd") for settings in CASES.values()} == set(named)
    assert set(METHODS) == set(named)


def _total(settings: dict[str, Any], full: BranchView, streaming: BranchView) -> Tensor:
    torch.manual_seed(0)  # for the projections of `mse`
    return sum(both(make(**settings)(full, streaming)), torch.zeros(()))


@each_case
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_padding_never_enters(settings: dict[str, Any], value: float) -> None:
    settings = settings | ({} if "direction" in settings else {"detach_teacher": False})
    views = random_views(1)
    hurt = [damaged(view, value) for view in views]
    loss, same = _total(settings, *views), _total(settings, *hurt)
    assert torch.equal(same, loss)
    for a, b in zip(gradients(same, *hurt), gradients(loss, *views)):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"logit_kl_shifted mean"}))
def test_equal_branches_have_nothing_to_learn(name: str) -> None:
    """But for a mean over delays, which wants each frame to be like all of its neighbours."""
    settings = CASES[name]
    full, _ = random_views(2)
    settings = {name: value for name, value in settings.items() if name != "shift"}
    attention = DIMS.heads["attention"].full
    dims = BranchDims(
        Widths(DIMS.encoder.full, DIMS.encoder.full), {"attention": Widths(attention, attention)}
    )
    loss = sum(both(make(dims, **settings)(full, full)), torch.zeros(()))
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-12)


def _touched(loss: Tensor, view: BranchView) -> bool:
    return any(bool(gradient.any()) for gradient in gradients(loss, view))


@each_one_way_case
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("direction", ["full_to_streaming", "streaming_to_full"])
def test_who_learns(settings: dict[str, Any], direction: str, detach: bool) -> None:
    full, streaming = random_views(3)
    loss = _total(settings | {"direction": direction, "detach_teacher": detach}, full, streaming)
    teacher, student = (full, streaming) if direction == "full_to_streaming" else (streaming, full)
    assert _touched(loss, student)
    assert _touched(loss, teacher) is not detach


@each_one_way_case
@pytest.mark.parametrize("detach", [True, False])
def test_both_is_the_mean_of_the_two_directions(settings: dict[str, Any], detach: bool) -> None:
    views = random_views(4)
    mutual = make(**settings, direction="both", detach_teacher=detach)
    losses = sum(both(mutual(*views)), torch.zeros(()))
    expected = torch.zeros(())
    for direction in ("full_to_streaming", "streaming_to_full"):
        one_way = make(**settings, direction=direction, detach_teacher=detach)
        pairs = (
            (one_way.encoder, mutual.encoder),
            (one_way.heads["attention"], mutual.heads["attention"]),
        )
        for mine, theirs in pairs:  # the same projections
            for name, method in mine.items():
                method.load_state_dict(theirs[name].state_dict())
        expected = expected + 0.5 * sum(both(one_way(*views)), torch.zeros(()))
    torch.testing.assert_close(losses, expected)
    for a, b in zip(gradients(losses, *views), gradients(expected, *views)):
        torch.testing.assert_close(a, b)
    assert all(_touched(losses, view) for view in views)


def test_the_two_directions_of_a_divergence_differ() -> None:
    full, streaming = random_views(5)
    got = make(method="logit_kl", direction="streaming_to_full", shift=1)(full, streaming)
    expected = slow_logit_kl(streaming.encoder, full.encoder, -1)
    torch.testing.assert_close(got.encoder, expected)
    other = slow_logit_kl(full.encoder, streaming.encoder, 1)
    assert abs(float((expected - other).detach())) > 1e-3


@pytest.mark.parametrize(
    "settings",
    [{"encoder_weight": 0.0}, {"head_weights": {"attention": 0.0}}, {"head_weights": {}}],
)
def test_a_weight_of_zero_costs_nothing(settings: dict[str, Any]) -> None:
    distiller = make(method="mse", **settings)
    at = 0 if "encoder_weight" in settings else 1
    parts = (distiller.encoder, distiller.heads["attention"])
    assert not list(parts[at].parameters()) and list(parts[1 - at].parameters())
    distilled = both(distiller(*random_views(6)))
    off, on = distilled[at], distilled[1 - at]
    assert float(off) == 0.0 and not off.requires_grad
    assert float(on.detach()) > 0.0


def test_warm_up() -> None:
    distiller, views = make(warm_up=3), random_views(7)
    values = []
    for step in range(5):
        set_step(distiller, step)
        values.append(float(distiller(*views).encoder.detach()))
    assert values[:3] == [0.0] * 3 and values[3] > 0.0 and values[4] == values[3]
    again = make(warm_up=3)
    again.load_state_dict(distiller.state_dict())  # the step is saved
    assert float(again(*views).encoder.detach()) == values[3]


@each_case
def test_autocast_changes_nothing(settings: dict[str, Any]) -> None:
    """bfloat16 states give the loss of their values in float32, and finite bfloat16 gradients."""

    def single(side: Sequences) -> Sequences:
        return Sequences(side.hidden.float(), side.said.float(), side.lens)

    views = [
        BranchView(single(v.encoder), {"attention": single(decoder_of(v))}) for v in random_views(8)
    ]
    half = [changed(v, v.encoder.hidden.bfloat16(), decoder_of(v).hidden.bfloat16()) for v in views]
    full_precision = [
        changed(v, v.encoder.hidden.float(), decoder_of(v).hidden.float()) for v in half
    ]
    weights: dict[str, Any] = {"encoder_weight": 1.0, "head_weights": {"attention": 1.0}}
    distiller = build_distiller(DistillationConfig(**(weights | settings)), DIMS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = distiller(*half)
    expected = distiller(*full_precision)
    for a, b in zip(both(got), both(expected)):
        assert a.dtype == torch.float32 and torch.equal(a, b)
    total = sum(both(got), torch.zeros(()))
    found = gradients(total, *half)
    assert all(torch.isfinite(g).all() for g in found) and any(g.any() for g in found)
    dtypes = [x.dtype for view in half for x in tensors(view)]
    assert [g.dtype for g in found] == dtypes


@each_case
def test_a_configuration_survives_a_file(settings: dict[str, Any]) -> None:
    config = DistillationConfig(encoder_weight=0.5, **settings)
    assert from_dict(DistillationConfig, to_dict(config)) == config


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"encoder_weight": -1.0}, "`encoder_weight` must not be negative"),
        ({"head_weights": {"attention": -1.0}}, "`head_weights.attention` must not be negative"),
        ({"warm_up": -1}, "`warm_up` must not be negative"),
        ({"method": "logit_kl_shifted", "max_shift": -1}, "`max_shift` must not be negative"),
        ({"method": "logit_kl", "temperature": 0.0}, "`temperature` must be positive"),
        ({"shift": 1}, "`shift` must be 0 with `utterance` items"),
        ({"temperature": 2.0}, "`temperature` must stay 1.0 with method 'sp_kd'"),
        ({"method": "logit_kl_shifted", "shift": 1}, "`shift` must stay 0"),
        ({"method": "logit_kl", "items": "frame"}, "`items` must stay 'utterance'"),
        ({"method": "logit_kl", "max_shift": 3}, "`max_shift` must stay 2"),
        ({"method": "mse", "centre": True}, "`centre` must stay False"),
        ({"method": "mse", "gather": False}, "`gather` must stay True"),
        ({"method": "logit_kl", "over_shifts": "mean"}, "`over_shifts` must stay 'min'"),
        (
            {"method": "logit_kl_shifted", "head_weights": {"attention": 1.0}},
            "compares CTC outputs only",
        ),
        ({"method": "consistency"}, "must have direction 'both'"),
        (
            {"method": "consistency", "direction": "both", "detach_teacher": False},
            "must have direction 'both' and `detach_teacher`",
        ),
    ],
)
def test_a_configuration_that_makes_no_sense(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        DistillationConfig(**settings)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="method"):
        from_dict(DistillationConfig, {"method": "sp-kd"})


def test_images_of_utterances() -> None:
    full, streaming = random_views(9)
    config = DistillationConfig()
    images = similarity_images(full, streaming, config)
    names = ["encoder_teacher", "encoder_student", "attention_teacher", "attention_student"]
    assert list(images) == [f"similarity/{name}" for name in names]
    for image in images.values():
        assert image.values.shape == (4, 4) and image.values.dtype == torch.float32
        assert not image.values.requires_grad
        assert image.grey.shape == (4, 4) and not image.grey.isnan().any()
    pooled = torch.stack(
        [full.encoder.hidden[n, :end].mean(0) for n, end in enumerate(full.encoder.lens)]
    ).detach()
    gram = pooled @ pooled.T
    expected = gram / gram.norm(dim=1, keepdim=True)
    got = images["similarity/encoder_teacher"].values.double()
    torch.testing.assert_close(got, expected.double(), rtol=1e-5, atol=1e-5)
    pair = [images[f"similarity/{name}"] for name in names[:2]]
    largest = max(float(image.values.abs().max()) for image in pair)
    for image in pair:
        assert (-image.low, image.high) == pytest.approx((largest, largest))
    again = similarity_images(damaged(full, math.nan), damaged(streaming, math.nan), config)
    assert all(torch.equal(again[name].values, image.values) for name, image in images.items())


def test_images_of_frames_are_those_of_the_first_utterance() -> None:
    full, streaming = random_views(10)
    images = similarity_images(full, streaming, DistillationConfig(items="frame", shift=1))
    sizes = {name.split("/")[1]: tuple(image.values.shape) for name, image in images.items()}
    paired = min(int(full.encoder.lens[0]), int(streaming.encoder.lens[0]) - 1)
    assert sizes["encoder_teacher"] == sizes["encoder_student"] == (paired, paired)
    assert (
        sizes["attention_teacher"]
        == sizes["attention_student"]
        == (int(decoder_of(full).lens[0]),) * 2
    )


def test_images_follow_the_direction_and_leave_out_what_is_not_there() -> None:
    full, streaming = random_views(11)
    one = similarity_images(full, streaming, DistillationConfig())
    other = similarity_images(full, streaming, DistillationConfig(direction="streaming_to_full"))
    mine, theirs = (
        {name.removeprefix("similarity/encoder_"): image.values for name, image in images.items()}
        for images in (one, other)
    )
    assert torch.equal(mine["teacher"], theirs["student"])
    assert not torch.equal(mine["teacher"], theirs["teacher"])
    config = DistillationConfig(items="frame", shift=100)
    assert list(similarity_images(full, streaming, config)) == [
        "similarity/attention_teacher",
        "similarity/attention_student",
    ]
