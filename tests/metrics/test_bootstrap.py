"""Bootstrap intervals: against a loop over single draws, a known variance, odd inputs."""

import math

import numpy as np
import pytest

from dualasr_lib.metrics.bootstrap import (
    BootstrapConfig,
    Interval,
    cer_interval,
    in_words,
    p_over_seeds,
    relative_cerr_interval,
    relative_cerr_over_seeds,
)


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


def test_the_order_of_utterances_changes_nothing() -> None:
    baseline, system, lengths = columns(60)
    order = np.random.default_rng(0).permutation(60)
    mixed = [[column[i] for i in order] for column in (baseline, system, lengths)]
    assert cer_interval(mixed[0], mixed[2]) == cer_interval(baseline, lengths)
    assert relative_cerr_interval(*mixed[:2]) == relative_cerr_interval(baseline, system)
    over_seeds = relative_cerr_over_seeds([mixed[0], mixed[1]], [mixed[1], mixed[1]])
    assert over_seeds == relative_cerr_over_seeds([baseline, system], [system, system])


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        (Interval(0.2, 0.1, 0.3), "significant: the system makes fewer errors"),
        (Interval(-0.2, -0.3, -0.1), "significant: the system makes more errors"),
        (Interval(0.2, -0.1, 0.5), "not significant: "),
        (Interval(0.0, 0.0, 0.0), "not significant: "),
        (Interval(0.2, 0.0, 0.5), "not significant: "),
        (Interval(None, None, None), "undecided: the baseline has no errors to reduce"),
    ],
)
def test_an_interval_in_words(interval: Interval, words: str) -> None:
    assert in_words(interval).startswith(words)


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


def test_one_seed_is_the_paired_interval() -> None:
    baseline, system, _ = columns(80)
    assert relative_cerr_over_seeds([baseline], [system]) == pytest.approx(
        relative_cerr_interval(baseline, system)
    )


def test_seeds_equal_a_loop_over_draws_in_distribution() -> None:
    """Utterances are drawn together; the error over seeds here by leaving each seed out."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(5, 40, 60)
    rates = (0.2, 0.24, 0.28, 0.3)
    baseline = np.stack([rng.binomial(lengths, rate) for rate in rates])
    system = np.stack([rng.binomial(lengths, 0.9 * rate) for rate in rates])
    reductions = []
    b, s = baseline.sum(axis=1), system.sum(axis=1)
    left_out = np.array([1 - np.delete(s, i).sum() / np.delete(b, i).sum() for i in range(4)])
    error = math.sqrt(3 / 4 * ((left_out - left_out.mean()) ** 2).sum())  # jackknife
    for _ in range(4000):
        utterances = rng.integers(0, 60, 60)
        b, s = (side[:, utterances].sum(axis=1) for side in (baseline, system))
        student = rng.standard_normal() / math.sqrt(rng.chisquare(3) / 3)
        reductions.append(1 - s.sum() / b.sum() + error * student)
    interval = relative_cerr_over_seeds(
        baseline.tolist(), system.tolist(), BootstrapConfig(num_draws=4000)
    )
    assert interval.value == pytest.approx(1 - system.sum() / baseline.sum())
    low, high = np.quantile(reductions, [0.025, 0.975])
    assert interval.low == pytest.approx(low, abs=0.02)
    assert interval.high == pytest.approx(high, abs=0.02)


def test_seeds_are_pairs() -> None:
    """Seeds differ much, but in each the system makes a tenth fewer errors."""
    baseline = [[10] * 50, [20] * 50, [40] * 50]
    system = [[9] * 50, [18] * 50, [36] * 50]
    assert relative_cerr_over_seeds(baseline, system) == pytest.approx((0.1, 0.1, 0.1))


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_methods_that_are_equal_seldom_differ(seeds: int) -> None:
    """Only seeds differ here: an interval of 95 % may leave out 0 in one case of twenty."""
    rng = np.random.default_rng(4)
    config = BootstrapConfig(num_draws=800)
    misses, trials = 0, 400
    for _ in range(trials):
        totals = rng.normal(1000, 40, (2, seeds)).round().astype(int)
        sides = [[[total] for total in side] for side in totals.tolist()]
        interval = relative_cerr_over_seeds(*sides, config)
        assert interval.low is not None and interval.high is not None
        misses += interval.low > 0 or interval.high < 0
    assert 0 < misses <= 0.05 * trials + 3 * math.sqrt(0.05 * 0.95 * trials)


def test_a_spread_over_seeds_widens_the_interval() -> None:
    """Every utterance says the same of these models; another seed need not."""
    baseline = [[10] * 200] * 3
    even, uneven = ([[errors] * 200 for errors in each] for each in ((8, 8, 8), (4, 8, 12)))
    assert relative_cerr_over_seeds(baseline, even) == pytest.approx((0.2, 0.2, 0.2))
    spread = relative_cerr_over_seeds(baseline, uneven)
    assert spread.low is not None and spread.high is not None
    assert spread.low < -0.3 and spread.high > 0.7


def test_seeds_refuse_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="the same seeds, at least one"):
        relative_cerr_over_seeds([], [[1, 2]])
    with pytest.raises(ValueError, match=r"\[2, 1\]"):
        relative_cerr_over_seeds([[1, 2]], [[3]])
    assert relative_cerr_over_seeds([[0, 0]], [[1, 0]]) == Interval(None, None, None)


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.25])
def test_p_is_the_share_of_the_drawn_distribution_beyond_zero(shift: float) -> None:
    rng = np.random.default_rng(7)
    lengths = rng.integers(5, 40, 80)
    baseline = [rng.binomial(lengths, rate) for rate in (0.2, 0.22, 0.25, 0.21)]
    system = [rng.binomial(errors, 1 - shift) for errors in baseline]
    system[0] = rng.binomial(lengths, 0.18)
    sides = [[x.tolist() for x in side] for side in (baseline, system)]
    p = p_over_seeds(*sides)
    assert p is not None
    slow = BootstrapConfig(num_draws=20000, level=1 - p)  # then one end of the interval is 0
    interval = relative_cerr_over_seeds(*sides, slow)
    assert interval.low is not None and interval.high is not None
    assert min(abs(interval.low), abs(interval.high)) < 0.012


def test_p_of_methods_that_are_equal_is_even() -> None:
    """Under no difference each p-value is as likely as any other: 5 % lie below 0.05."""
    rng = np.random.default_rng(8)
    found = []
    for _ in range(1000):
        totals = rng.normal(1000, 40, (2, 4)).round().astype(int)
        p = p_over_seeds(*([[[total] for total in side] for side in totals.tolist()]))
        assert p is not None
        found.append(p)
    for level in (0.05, 0.2, 0.5):
        spread = math.sqrt(level * (1 - level) / 1000)
        assert np.mean(np.array(found) < level) == pytest.approx(level, abs=4 * spread)


def test_p_of_what_is_certain_or_unknown() -> None:
    baseline = [[10] * 50, [20] * 50, [40] * 50]
    assert p_over_seeds(baseline, [[9] * 50, [18] * 50, [36] * 50]) == 0.0
    assert p_over_seeds(baseline, baseline) == 1.0
    assert p_over_seeds(baseline[:1], baseline[:1]) is None  # one seed
    assert p_over_seeds([[0, 0]] * 2, [[1, 0]] * 2) is None  # no errors to reduce
