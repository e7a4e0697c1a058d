"""From errors by utterance to rates, spreads over seeds, and comparisons with intervals."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import NamedTuple

from analysis.matrix.results import MatrixResults, RunResult
from dualasr_lib.metrics.bootstrap import (
    BootstrapConfig,
    Interval,
    p_over_seeds,
    relative_cerr_interval,
    relative_cerr_over_seeds,
)
from dualasr_lib.metrics.significance import holm
from dualasr_lib.model.joint import BRANCHES

__all__ = ["LEVEL", "Comparison", "Rate", "Table"]

LEVEL = 0.05
"""Below it a p-value counts as significant."""


class Rate(NamedTuple):
    """CER of a cell."""

    mean: float
    """Over seeds."""
    spread: float | None
    """Standard deviation over seeds; None for one seed."""
    seeds: tuple[float, ...]


class Comparison(NamedTuple):
    """A cell against a baseline, on one branch, with one method."""

    cell: str
    baseline: str
    """Name of the cell; with `:method`, where that is another one than the compared cell's."""
    branch: str
    utterances: Interval
    """Relative CERR of the seeds both have, and its interval for other utterances: these models."""
    both: Interval
    """With an interval for other utterances and other seeds: these methods."""
    splits: dict[str, float | None]
    """Relative CERR on each split."""
    better: int
    """Seeds in which the cell makes fewer errors than the baseline."""
    seeds: int

    p: float | None = None
    """Of no difference, over utterances and seeds; None for one seed."""
    corrected: float | None = None
    """The same after Holm's correction; that of a primary comparison is not corrected."""
    primary: bool = False
    """Whether the matrix names it as the one of its group that decides."""

    @property
    def significant(self) -> bool | None:
        """Whether the corrected p-value is below `LEVEL`; None for one seed."""
        return None if self.corrected is None else self.corrected < LEVEL


class Table:
    """Questions to ask of the results."""

    def __init__(self, results: MatrixResults) -> None:
        self.results = results
        self._runs: dict[str, list[RunResult]] = {}
        for run in results.runs:
            self._runs.setdefault(run.cell, []).append(run)
        self._compared: dict[str, dict[str, list[Comparison]]] = {}

    def runs(self, cell: str) -> list[RunResult]:
        """The runs of a cell; none if it was not run."""
        return self._runs.get(cell, [])

    def has(self, cell: str, branch: str, method: str = "") -> bool:
        """Whether there are results of a cell's branch, by a method (by any)."""
        found = [run.errors[branch] for run in self.runs(cell) if branch in run.errors]
        return any(method in methods for methods in found) if method else bool(found)

    def rate(self, cell: str, branch: str, method: str, splits: Sequence[str]) -> Rate:
        """CER of all utterances of `splits` together."""
        chars = sum(sum(self.results.lengths[split]) for split in splits)
        if not chars:
            raise ValueError(f"{' + '.join(splits)} must have reference characters, but has none")
        rates = [sum(self._errors(run, branch, method, splits)) / chars for run in self.runs(cell)]
        return Rate(mean(rates), stdev(rates) if len(rates) > 1 else None, tuple(rates))

    def compare(
        self, cell: str, baseline: str, branch: str, method: str, its_method: str = ""
    ) -> Comparison:
        """`cell` against `baseline`, decoded with `its_method` (the same), in the seeds that both
        have.

        Raises:
            ValueError: they have no seed in common.
        """
        ours, theirs = ({run.seed: run for run in self.runs(name)} for name in (cell, baseline))
        seeds = sorted(ours.keys() & theirs.keys())
        if not seeds:
            raise ValueError(f"{cell} and {baseline} have no seed in common")

        def rows(whose: str, splits: Sequence[str]) -> list[list[int]]:
            runs, by = (ours, method) if whose == "ours" else (theirs, its_method or method)
            return [self._errors(runs[seed], branch, by, splits) for seed in seeds]

        config = BootstrapConfig()
        splits = self.results.splits
        system, base = rows("ours", splits), rows("theirs", splits)
        by_split = {
            split: _reduction(rows("theirs", [split]), rows("ours", [split])) for split in splits
        }
        return Comparison(
            cell,
            f"{baseline}:{its_method}" if its_method else baseline,
            branch,
            relative_cerr_interval(_summed(base), _summed(system), config),
            relative_cerr_over_seeds(base, system, config),
            by_split,
            sum(sum(b) > sum(s) for b, s in zip(base, system)),
            len(seeds),
            p_over_seeds(base, system, config),
        )

    def comparisons(self, group: str, method: str) -> list[Comparison]:
        """All that the cells of a group ask for and for which there are results; made once. Holm's
        correction is over all comparisons of the group, by all methods, but the primary one of each
        branch.
        """
        if group not in self._compared:
            methods = self.results.methods
            found = [(m, each) for m in methods for each in self._group(group, m)]
            p_values = holm([None if each.primary else each.p for _, each in found])
            self._compared[group] = {m: [] for m in methods}
            for (m, each), corrected in zip(found, p_values):
                final = each._replace(corrected=each.p if each.primary else corrected)
                self._compared[group][m].append(final)
        return self._compared[group][method]

    def _group(self, group: str, method: str) -> list[Comparison]:
        return [
            self.compare(cell.name, baseline, branch, method, other)._replace(
                primary=first and against == cell.primary.replace("{branch}", branch)
            )
            for branch in BRANCHES
            for cell in self.results.cells
            if cell.group == group and self.has(cell.name, branch, method)
            for first in [method == self.results.first(cell)]
            for baseline, other in cell.baselines(branch)
            for against in [f"{baseline}:{other}" if other else baseline]
            if first or not other  # another method of the baseline: against the first one only
            if self.has(baseline, branch, other or method)
            if self._seeds(cell.name) & self._seeds(baseline)
        ]

    def emission(self, cell: str, rank: str) -> float | None:
        """Percentile `rank` of the emission delay, ms: the mean over splits and seeds."""
        found = [
            value
            for run in self.runs(cell)
            for split in run.emission_ms.values()
            if (value := split[rank]) is not None
        ]
        return mean(found) if found else None

    def similarity(self, cell: str, name: str) -> float | None:
        """An sp-KD loss on valid, the mean over seeds."""
        found = [run.similarity[name] for run in self.runs(cell) if name in run.similarity]
        return mean(found) if found else None

    def _seeds(self, cell: str) -> set[int]:
        return {run.seed for run in self.runs(cell)}

    def _errors(self, run: RunResult, branch: str, method: str, splits: Sequence[str]) -> list[int]:
        by_split = run.errors[branch][method]
        return [errors for split in splits for errors in by_split[split]]


def _summed(rows: Sequence[Sequence[int]]) -> list[int]:
    """Errors of each utterance, all seeds together."""
    return [sum(column) for column in zip(*rows)]


def _reduction(baseline: Sequence[Sequence[int]], system: Sequence[Sequence[int]]) -> float | None:
    before, after = (sum(map(sum, rows)) for rows in (baseline, system))
    return (before - after) / before if before else None
