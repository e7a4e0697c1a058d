"""Learning rates against numbers computed from the formula by hand."""

import pytest

from dualasr_lib.training.schedule import ScheduleConfig, learning_rate

_EDEN = ScheduleConfig(base_lr=0.04, lr_batches=7500.0, lr_epochs=3.5)


@pytest.mark.parametrize(
    ("step", "epoch", "expected"),
    [
        (0, 0, 0.04 * 0.1),  # warm-up starts at a tenth
        (250, 0, 0.04 * 0.55 * (1 + (250 / 7500) ** 2) ** -0.25),
        (7500, 0, 0.04 * 2**-0.25),
        (7500, 3.5, 0.04 * 2**-0.5),
        (22500, 7, 0.04 * 10**-0.25 * 5**-0.25),
    ],
)
def test_eden(step: float, epoch: float, expected: float) -> None:
    assert learning_rate(step, epoch, _EDEN) == pytest.approx(expected, rel=1e-12)


def test_eden_numbers_of_a_calculator() -> None:
    """0.045 at step 30000, epoch 10: 17^-1/4 = 0.49248, 9.16327^-1/4 = 0.57476."""
    assert learning_rate(30000, 10, ScheduleConfig()) == pytest.approx(0.012737, rel=1e-4)


def test_0_switches_a_part_off() -> None:
    flat = ScheduleConfig(base_lr=0.5, lr_batches=0.0, lr_epochs=0.0, warmup_batches=0.0)
    assert learning_rate(10**6, 100, flat) == 0.5


@pytest.mark.parametrize(
    ("shape", "expected"), [("linear", [1, 1, 0.5, 0.25, 0]), ("cosine", [1, 1, 0.5, 0.1464, 0])]
)
def test_final_decay(shape: str, expected: list[float]) -> None:
    config = ScheduleConfig(
        base_lr=1.0,
        lr_batches=0.0,
        lr_epochs=0.0,
        warmup_batches=0.0,
        decay_fraction=0.4,
        decay_shape=shape,  # type: ignore[arg-type]
    )
    rates = [learning_rate(step, 0, config, 1000) for step in (0, 600, 800, 900, 1000)]
    assert rates == pytest.approx(expected, abs=1e-4)


def test_final_decay_needs_the_number_of_steps() -> None:
    with pytest.raises(ValueError, match="set `max_steps`"):
        learning_rate(0, 0, ScheduleConfig(decay_fraction=0.1))


@pytest.mark.parametrize(
    "bad", [{"base_lr": 0.0}, {"decay_fraction": 1.5}, {"warmup_start": 2.0}, {"lr_epochs": -1.0}]
)
def test_settings_are_checked(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        ScheduleConfig(**bad)  # type: ignore[arg-type]
