"""Bootstrap intervals: against a loop over single draws, a known variance, odd inputs."""

import math

import numpy as np
import pytest

from dualasr_lib.metrics.bootstrap import BootstrapConfig, cer_interval, relative_cerr_interval


def columns(size: int) -> tuple[list[int], list[int], list[int]]:
    rng = np.random.default_rng(3)
    lengths = rng.integers(5, 40, size)
    baseline = rng.binomial(lengths, 0.2)
    return baseline.tolist(), rng.binomial(baseline, 0.8).tolist(), lengths.tolist()


def test_equals_a_loop_over_draws_in_distribution() -> None:
    errors, _, lengths = columns(60)
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(4000):
        drawn = rng.integers(0, 60, 60)
        rates.append(sum(errors[i] for i in drawn) / sum(lengths[i] for i in drawn))
    interval = cer_interval(errors, lengths, BootstrapConfig(num_draws=4000))
    assert interval.value == sum(errors) / sum(lengths)
    low, high = np.quantile(rates, [0.025, 0.975])
    assert interval.low == pytest.approx(low, abs=0.004)
    assert interval.high == pytest.approx(high, abs=0.004)


def test_width_is_that_of_a_mean() -> None:
    errors = [0, 1] * 200
    interval = cer_interval(errors, [1] * 400, BootstrapConfig(num_draws=4000))
    half_width = 1.96 * 0.5 / math.sqrt(400)
    assert interval.low == pytest.approx(0.5 - half_width, abs=0.006)
    assert interval.high == pytest.approx(0.5 + half_width, abs=0.006)


def test_paired_draws_are_shared() -> None:
    baseline, system, _ = columns(80)
    interval = relative_cerr_interval(baseline, system)
    assert interval.value == pytest.approx((sum(baseline) - sum(system)) / sum(baseline))
    assert interval.low is not None
    assert interval.low > 0  # every utterance is at least as good, so every draw is
    halves = [value / 2 for value in baseline]
    exact = relative_cerr_interval(baseline, halves)  # type: ignore[arg-type]
    assert exact == pytest.approx((0.5, 0.5, 0.5))


def test_seed_decides() -> None:
    errors, _, lengths = columns(30)
    assert cer_interval(errors, lengths) == cer_interval(errors, lengths)
    other = cer_interval(errors, lengths, BootstrapConfig(seed=1))
    assert other != cer_interval(errors, lengths)


def test_blocks_do_not_lose_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    errors, _, lengths = columns(30)
    monkeypatch.setattr("dualasr_lib.metrics.bootstrap._BLOCK", 100)
    in_blocks = cer_interval(errors, lengths)
    monkeypatch.undo()
    assert in_blocks == cer_interval(errors, lengths)


def test_undefined_is_none() -> None:
    assert cer_interval([], []) == (None, None, None)
    assert cer_interval([2], [0]) == (None, None, None)
    assert relative_cerr_interval([0, 0], [1, 0]) == (None, None, None)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"\[2, 1\]"):
        cer_interval([1, 2], [3])
    with pytest.raises(ValueError, match="num_draws"):
        BootstrapConfig(num_draws=0)
    with pytest.raises(ValueError, match="level"):
        BootstrapConfig(level=1.0)
