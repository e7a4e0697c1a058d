"""Bootstrap intervals over utterances: of one error rate, and of the relative change between two
systems.

Utterances are drawn with replacement, as many as there are; the rate of each draw is errors /
characters of the draw; the interval holds the middle part of the draws (percentile method; Bisani
and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP
2004). The paired form draws the same utterances for both systems. Where each system was trained
several times, seeds are drawn, too. It leaves out tests of significance other than the interval
itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dualasr_lib.metrics.significance import student_cdf

__all__ = [
    "BootstrapConfig",
    "Interval",
    "cer_interval",
    "in_words",
    "p_over_seeds",
    "relative_cerr_interval",
    "relative_cerr_over_seeds",
]

_Floats = npt.NDArray[np.float64]
_BLOCK = 1 << 22  # drawn utterances held at once: 32 MiB of counts


@dataclass(frozen=True, kw_only=True)
class BootstrapConfig:
    """How intervals are drawn."""

    num_draws: int = 2000
    """Draws; the ends of a 95 % interval then rest on 50 draws each."""
    level: float = 0.95
    """Share of the draws inside the interval."""
    seed: int = 20260101
    """Seed of the draws; the same seed and utterances give the same interval."""

    def __post_init__(self) -> None:
        if self.num_draws < 1:
            raise ValueError(f"`num_draws` must be at least 1, but is {self.num_draws}")
        if not 0 < self.level < 1:
            raise ValueError(f"`level` must lie between 0 and 1, but is {self.level}")


class Interval(NamedTuple):
    """A measured value and its interval; None where it is not defined (no reference characters)."""

    value: float | None
    low: float | None
    high: float | None


def cer_interval(
    errors: Sequence[int], lengths: Sequence[int], config: BootstrapConfig | None = None
) -> Interval:
    """Error rate of all utterances together, with its interval.

    Args:
        errors: errors of each utterance.
        lengths: reference characters of each utterance.
    """
    columns = _columns(errors, lengths)
    config = config or BootstrapConfig()
    sums = _drawn_sums(columns, config)
    return _interval(columns.sum(axis=0), sums, _rate, config)


def relative_cerr_interval(
    baseline_errors: Sequence[int],
    system_errors: Sequence[int],
    config: BootstrapConfig | None = None,
) -> Interval:
    """(baseline - system) / baseline of two error rates on the same utterances, with its paired
    interval.

    Above 0 the system is better. The reference characters are the same for both and cancel, so
    errors are enough.

    Args:
        baseline_errors: errors of each utterance under the baseline.
        system_errors: errors of the same utterances, in the same order, under the system.
    """
    columns = _columns(baseline_errors, system_errors)
    config = config or BootstrapConfig()
    sums = _drawn_sums(columns, config)
    return _interval(columns.sum(axis=0), sums, _reduction, config)


def in_words(reduction: Interval, level: float = 0.95) -> str:
    """Whether a relative reduction of errors is significant: whether its interval leaves 0 out."""
    if reduction.low is None or reduction.high is None:
        return "undecided: the baseline has no errors to reduce"
    share = f"{100 * level:g} % interval"
    if reduction.low > 0:
        return f"significant: the system makes fewer errors (the {share} lies above 0)"
    if reduction.high < 0:
        return f"significant: the system makes more errors (the {share} lies below 0)"
    return (
        f"not significant: with other utterances it could be none at all (the {share} has 0 in it)"
    )


def relative_cerr_over_seeds(
    baseline_errors: Sequence[Sequence[int]],
    system_errors: Sequence[Sequence[int]],
    config: BootstrapConfig | None = None,
) -> Interval:
    """Relative CERR of the means over training seeds, with an interval for other utterances and
    other seeds.

    Each draw takes the same utterances for all models; to the relative CERR R of their sums it adds
    its standard error over the n seeds times a draw of Student's t with n - 1 degrees of freedom.
    The error is that of a ratio of paired means (of baseline errors b, system errors s):
    sd(b - s - R b) / (sqrt(n) mean(b)). Runs of one seed begin with the same weights and batches as
    far as their models are the same, so they are pairs; where they have nothing in common, the
    interval is still right. Drawing the seeds themselves would not be: of three it gives
    intervals that are too short. One seed says nothing of other seeds.

    Args:
        baseline_errors: for each seed of the baseline the errors of each utterance.
        system_errors: of the same seeds and utterances, in the same order, under the system.
    """
    config = config or BootstrapConfig()
    found = _over_seeds(baseline_errors, system_errors, config)
    if found.size == 1:
        return _middle(found.value, found.drawn, config)
    student = np.random.default_rng([config.seed, 1]).standard_t(found.size - 1, len(found.drawn))
    return _middle(found.value, found.drawn + found.error * student, config)


def p_over_seeds(
    baseline_errors: Sequence[Sequence[int]],
    system_errors: Sequence[Sequence[int]],
    config: BootstrapConfig | None = None,
) -> float | None:
    """Two-sided p-value of no difference, by the distribution of which `relative_cerr_over_seeds`
    gives the middle: twice the share of it that lies on the other side of 0. Student's t is
    integrated, not drawn, so that small values can be told apart. None for one seed, and for
    baselines without errors.

    Args:
        baseline_errors, system_errors: as there.
    """
    found = _over_seeds(baseline_errors, system_errors, config or BootstrapConfig())
    drawn = found.drawn[~np.isnan(found.drawn)]
    if found.size < 2 or np.isnan(found.value) or not drawn.size:
        return None
    if found.error > 0:
        below = float(student_cdf(-drawn / found.error, found.size - 1).mean())
    else:  # all seeds say the same
        below = float(((drawn < 0).sum() + (drawn == 0).sum() / 2) / drawn.size)
    return min(1.0, 2 * min(below, 1 - below))


class _OverSeeds(NamedTuple):
    """Of what a comparison over seeds is made."""

    size: int
    """Seeds."""
    value: float
    """Relative CERR of all utterances and seeds; NaN without errors of the baseline."""
    drawn: _Floats
    """(draws,) the same of drawn utterances."""
    error: float
    """Standard error over seeds; NaN for one."""


def _over_seeds(
    baseline_errors: Sequence[Sequence[int]],
    system_errors: Sequence[Sequence[int]],
    config: BootstrapConfig,
) -> _OverSeeds:
    size = len(baseline_errors)
    if not size or size != len(system_errors):
        raise ValueError(
            "baseline and system need the same seeds, at least one, "
            f"but have {size} and {len(system_errors)}"
        )
    rows = _columns(*baseline_errors, *system_errors)
    drawn, exact = _drawn_sums(rows, config), rows.sum(axis=0)
    means = [np.stack([x[..., :size].mean(-1), x[..., size:].mean(-1)], -1) for x in (exact, drawn)]
    value, error = float(_reduction(means[0])), float("nan")
    if size > 1:
        rest = exact[:size] - exact[size:] - value * exact[:size]
        error = float(_divide(rest.std(ddof=1) / np.sqrt(size), means[0][0]))
    return _OverSeeds(size, value, _reduction(means[1]), error)


def _columns(*columns: Sequence[int]) -> _Floats:
    """(utterances, columns) after a check of lengths; in an order of their own, so that the same
    utterances in any order give the same draws.
    """
    sizes = [len(column) for column in columns]
    if len(set(sizes)) != 1:
        raise ValueError(f"each utterance needs one value per column, but lengths are {sizes}")
    rows = np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)
    return rows[np.lexsort(rows.T)]


def _drawn_sums(columns: _Floats, config: BootstrapConfig) -> _Floats:
    """(draws, columns): sums over each draw of utterances."""
    size = len(columns)
    if size == 0:
        return np.zeros((0, columns.shape[1]))
    generator = np.random.default_rng(config.seed)
    sums = []
    left = config.num_draws
    while left:
        block = min(left, max(1, _BLOCK // size))
        # How often each utterance was drawn says all that a draw's sums need.
        counts = generator.multinomial(size, np.full(size, 1 / size), size=block)
        sums.append(counts @ columns)
        left -= block
    return np.concatenate(sums)


def _rate(sums: _Floats) -> _Floats:
    return _divide(sums[..., 0], sums[..., 1])


def _reduction(sums: _Floats) -> _Floats:
    return _divide(sums[..., 0] - sums[..., 1], sums[..., 0])


def _divide(top: _Floats, bottom: _Floats) -> _Floats:
    """top / bottom, NaN where bottom is 0."""
    ratio: _Floats = np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0)
    return ratio


def _interval(
    sums: _Floats, drawn: _Floats, ratio: Callable[[_Floats], _Floats], config: BootstrapConfig
) -> Interval:
    """The ratio of all utterances, and the middle part of the ratios of the draws in which it
    exists.
    """
    return _middle(float(ratio(sums)), ratio(drawn), config)


def _middle(value: float, ratios: _Floats, config: BootstrapConfig) -> Interval:
    """`value` and the ends of the middle part of those ratios that exist."""
    ratios = ratios[~np.isnan(ratios)]
    if np.isnan(value) or ratios.size == 0:
        return Interval(None, None, None)
    tail = (1 - config.level) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return Interval(value, float(low), float(high))
