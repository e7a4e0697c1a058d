"""Schedules: values, the step in state dicts, and that nothing of them lives on a device."""

import copy
import math

import pytest
import torch
from torch import nn

from dualasr_lib.model.zipformer.scheduled import Knot, Scheduled, interpolate, set_step


class Holder(nn.Module):
    """A model with a saved and an unsaved schedule below its top."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 2), Scheduled((0, 1.0), (10, 0.0)))
        self.unsaved = Scheduled((0, 0.5), (8, 0.1), saved=False)


@pytest.mark.parametrize(
    ("step", "value"), [(-1, 4.0), (2, 4.0), (3, 3.0), (4, 2.0), (6, 4.0), (8, 6.0), (99, 6.0)]
)
def test_interpolation(step: float, value: float) -> None:
    knots = (Knot(2, 4.0), Knot(4, 2.0), Knot(8, 6.0))
    assert math.isclose(interpolate(knots, step), value)


def test_value_is_a_float_and_follows_the_step() -> None:
    schedule = Scheduled((0, 1.0), (10, 0.0))
    assert schedule.now() == 1.0
    set_step(schedule, 5)
    assert type(schedule.now()) is float
    assert schedule.now() == 0.5 == schedule.eval().now()


def test_constant() -> None:
    schedule = Scheduled((0, 0.3))
    set_step(schedule, 10**9)
    assert schedule.now() == 0.3


def test_bad_knots() -> None:
    with pytest.raises(ValueError, match="must increase"):
        Scheduled((5, 1.0), (5, 0.0))
    with pytest.raises(ValueError, match="at least one knot"):
        Scheduled()


def test_set_step_reaches_every_schedule() -> None:
    model = Holder()
    set_step(model, 4)
    assert (model.inner[1].now(), model.unsaved.now()) == (0.6, 0.3)


def test_step_is_saved_as_a_tensor_but_is_no_buffer() -> None:
    model = Holder()
    set_step(model, 7)
    state = model.state_dict()
    assert set(state) == {"inner.0.weight", "inner.0.bias", "inner.1.step"}
    assert torch.equal(state["inner.1.step"], torch.tensor(7, dtype=torch.int64))
    assert list(model.buffers()) == []
    set_step(model, 8)
    assert int(state["inner.1.step"]) == 7


def test_loading_restores_the_step() -> None:
    model, other = Holder(), Holder()
    set_step(model, 7)
    other.load_state_dict(model.state_dict())
    assert other.inner[1].now() == model.inner[1].now() == pytest.approx(0.3)
    assert other.unsaved.now() == 0.5


def test_strict_loading_names_what_is_wrong() -> None:
    state = Holder().state_dict()
    state["unsaved.step"] = torch.tensor(3)
    with pytest.raises(RuntimeError, match=r'Unexpected.*"unsaved\.step"'):
        Holder().load_state_dict(state)
    state = Holder().state_dict()
    del state["inner.1.step"]
    with pytest.raises(RuntimeError, match=r'Missing.*"inner\.1\.step"'):
        Holder().load_state_dict(state)
    model = Holder()
    set_step(model, 5)
    model.load_state_dict(state, strict=False)
    assert model.inner[1].now() == 0.5


def test_copy_and_conversion_keep_the_step() -> None:
    model = Holder()
    set_step(model, 5)
    for other in (copy.deepcopy(model), copy.deepcopy(model).to(torch.float64)):
        assert other.inner[1].now() == 0.5
        set_step(other, 10)
    assert model.inner[1].now() == 0.5
