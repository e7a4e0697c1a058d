"""Where the noise of a comparison comes from, and how often a comparison of another size would find
a true gain.

Of the baseline's errors b and the system's errors s in each utterance u and seed k, with their
relative CERR R, the rest r = b - s - R b is zero on average. Two-way analysis of variance (Searle,
Casella and McCulloch, "Variance Components", 1992, chapter 4): r = utterance + seed + both, where
"both" holds everything that one utterance does in one seed. Left out: that utterances of one
speaker are alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from analysis.matrix.results import MatrixResults
from dualasr_lib.metrics.significance import student_cdf

__all__ = ["Budget", "Noise", "Parts", "budget", "components", "grid", "power"]

_Floats = npt.NDArray[np.float64]
_LEVEL = 0.05
_HERMITE: tuple[_Floats, _Floats] = np.polynomial.hermite_e.hermegauss(21)  # type: ignore[no-untyped-call]
_NODES, _WEIGHTS = _HERMITE  # of a standard normal variable


class Parts(NamedTuple):
    """Standard errors of a relative CERR: shares of 1."""

    utterances: float
    seeds: float
    both: float
    all: float


@dataclass(frozen=True)
class Noise:
    """Standard deviations of a relative CERR."""

    utterance: float
    """By test utterances; of n characters it is this / sqrt(n)."""
    seed: float
    """By the seed, of one pair of trainings."""
    both: float
    """By both together; of n characters and k seeds it is this / sqrt(n k)."""

    def errors(self, characters: int, seeds: int) -> Parts:
        """Of a comparison of this size."""
        parts = (
            self.utterance / characters**0.5,
            self.seed / seeds**0.5,
            self.both / (characters * seeds) ** 0.5,
        )
        return Parts(*parts, sum(part**2 for part in parts) ** 0.5)

    def with_seeds(self, part: float) -> "Noise":
        """With `part` of the variance by seeds."""
        return Noise(self.utterance, self.seed * part**0.5, self.both)


class Budget(NamedTuple):
    """The noise of one comparison on record."""

    gain: float
    """Relative CERR that was found."""
    characters: int
    seeds: int
    noise: Noise
    seed_range: tuple[float, float]
    """95 % interval of `noise.seed`: few seeds say little about their own spread."""


def budget(results: MatrixResults, cell: str, baseline: str, branch: str, method: str) -> Budget:
    """Of `cell` against `baseline` ({branch} is replaced), all evaluation splits together.

    Raises:
        ValueError: fewer than two seeds in common, or no such branch or method.
    """
    baseline = baseline.replace("{branch}", branch)
    sides: dict[str, dict[int, list[int]]] = {cell: {}, baseline: {}}
    for run in results.runs:
        if run.cell in sides and method in run.errors.get(branch, {}):
            by_split = run.errors[branch][method]
            sides[run.cell][run.seed] = [e for split in results.splits for e in by_split[split]]
    seeds = sorted(sides[cell].keys() & sides[baseline].keys())
    if len(seeds) < 2:
        raise ValueError(
            f"noise over seeds needs two seeds of {cell} and {baseline} ({branch}, {method}), but "
            f"there are {len(seeds)}"
        )
    old, new = (np.array([sides[name][k] for k in seeds], float).T for name in (baseline, cell))
    characters = sum(sum(results.lengths[split]) for split in results.splits)
    return components(old, new, characters)


def components(baseline: _Floats, system: _Floats, characters: int) -> Budget:
    """Args:
    baseline, system: (U, K) errors of each utterance and seed.
    characters: reference characters of the U utterances.

    Raises:
        ValueError: a baseline without errors.
    """
    utterances, seeds = baseline.shape
    mean = baseline.mean()
    if mean <= 0:
        raise ValueError("the baseline must have errors, but has none")
    gain = float((baseline.sum() - system.sum()) / baseline.sum())
    rest = (baseline - system - gain * baseline) / mean
    by_utterance, by_seed = rest.mean(axis=1), rest.mean(axis=0)
    left = rest - by_utterance[:, None] - by_seed + rest.mean()
    both = float((left**2).sum() / ((utterances - 1) * (seeds - 1)))
    over_utterances = seeds * float(by_utterance.var(ddof=1))
    over_seeds = utterances * float(by_seed.var(ddof=1))
    per_utterance = characters / utterances  # characters
    draws = np.random.default_rng(1).chisquare(seeds - 1, 100_000) / (seeds - 1)
    ends = (float(over_seeds / np.quantile(draws, end)) for end in (0.975, 0.025))
    low, high = (max(0.0, (end - both) / utterances) ** 0.5 for end in ends)
    noise = Noise(
        (max(0.0, (over_utterances - both) / seeds) * per_utterance) ** 0.5,
        max(0.0, (over_seeds - both) / utterances) ** 0.5,
        (both * per_utterance) ** 0.5,
    )
    return Budget(gain, characters, seeds, noise, (low, high))


def power(noise: Noise, gain: float, characters: int, seeds: int, trials: int) -> float:
    """Share of simulated experiments with p < 0.05 and the right sign.

    The test is that of `metrics.bootstrap.p_over_seeds`, with the bootstrap over utterances as the
    normal distribution that it is at this size.
    """
    rng = np.random.default_rng([7, characters, seeds])
    shared = noise.utterance / characters**0.5 * rng.standard_normal((trials, 1))
    own = (noise.seed**2 + noise.both**2 / characters) ** 0.5
    found = gain + shared + own * rng.standard_normal((trials, seeds))
    mean, error = found.mean(axis=1), found.std(axis=1, ddof=1) / seeds**0.5
    parts = noise.errors(characters, seeds)
    drawn = mean[:, None] + (parts.utterances**2 + parts.both**2) ** 0.5 * _NODES
    below = student_cdf(-drawn / np.maximum(error, 1e-12)[:, None], seeds - 1)
    return float(np.mean(2 * (below @ (_WEIGHTS / _WEIGHTS.sum())) < _LEVEL))


def grid(
    noise: Noise, gain: float, characters: Sequence[int], seeds: Sequence[int], trials: int
) -> list[list[float]]:
    """`power` for each number of characters (rows) and seeds (columns)."""
    return [[power(noise, gain, n, k, trials) for k in seeds] for n in characters]
