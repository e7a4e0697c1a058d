"""Clipping against the running median."""

import math

import pytest

from dualasr_lib.training.clipping import ClippingConfig, MedianClip


def test_the_factor_brings_a_wild_gradient_to_twice_the_median() -> None:
    clip = MedianClip(ClippingConfig(scale=2.0, window=10))
    for norm in range(1, 11):  # median 5.5
        assert clip.decide(float(norm)).clip_factor == 1.0
    assert clip.decide(11.0).clip_factor == 1.0
    # The window is now 2 ... 11, median 6.5.
    assert clip.decide(130.0).clip_factor == pytest.approx(2 * 6.5 / 130.0)
    assert clip.clipped_fraction == pytest.approx(0.1)


def test_nothing_is_clipped_before_there_is_a_history() -> None:
    clip = MedianClip(ClippingConfig())
    assert [clip.decide(norm).clip_factor for norm in (1.0, 1000.0, 1e6)] == [1.0, 1.0, 1.0]


def test_scale_0_switches_it_off() -> None:
    clip = MedianClip(ClippingConfig(scale=0.0))
    assert all(clip.decide(10.0**n).clip_factor == 1.0 for n in range(20))


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_a_norm_that_is_not_finite_is_refused_and_forgotten(norm: float) -> None:
    clip = MedianClip(ClippingConfig())
    clip.decide(1.0)
    before = clip.state_dict()
    assert not clip.decide(norm).applied
    assert clip.state_dict() == before


def test_state_round_trip() -> None:
    one, two = MedianClip(ClippingConfig(window=12)), MedianClip(ClippingConfig(window=12))
    for n in range(30):
        one.decide(50.0 if n > 26 else 1.0 + n % 7)
    two.load_state_dict(one.state_dict())
    assert two.clipped_fraction == pytest.approx(3 / 12)
    norms = [100.0 if n % 6 == 0 else 4.0 for n in range(40)]
    assert [one.decide(norm) for norm in norms] == [two.decide(norm) for norm in norms]
    assert one.clipped_fraction == two.clipped_fraction > 0


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="`window` must be at least 10, but is 3"):
        ClippingConfig(window=3)
    with pytest.raises(ValueError, match="`scale` must be 0 or more"):
        ClippingConfig(scale=-1.0)
