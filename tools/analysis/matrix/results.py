"""Results of a matrix, read from its run folders, and as one JSON file that has all that the tables
are made of: errors by utterance, latencies, and where each number comes from.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from analysis.matrix.folder import Record, differences, read_record, record_file
from analysis.matrix.plan import Cell, CellConfig, MatrixConfig, Run
from analysis.matrix.steps import Workplace, steps, stream_method
from dualasr_lib.core.config import from_dict
from dualasr_lib.core.files import write_atomically
from dualasr_lib.decoding.results import Result, read_result
from dualasr_lib.decoding.writer import result_files
from dualasr_lib.metrics.units import UnitName
from dualasr_lib.model.joint import BRANCHES
from dualasr_lib.recognition.naming import ResultName

__all__ = ["MatrixResults", "RunResult", "collect", "read_results", "write_results"]

_LOG = logging.getLogger(__name__)

Errors = dict[str, dict[str, dict[str, list[int]]]]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What one training of a cell came to."""

    cell: str
    seed: int
    parameters: int
    """Trainable numbers of the model."""
    commits: dict[str, str]
    """Name of each step -> commit of the programs."""
    device: str
    """That it was trained on."""
    train_seconds: float
    errors: Errors
    """Branch -> method -> split -> errors of each utterance, in the order of their ids."""
    emission_ms: dict[str, dict[str, float | None]]
    """Split -> percentiles of the emission delay of the streaming branch."""
    similarity: dict[str, float]
    """Part and items -> sp-KD loss between the branches on valid; empty for one branch."""


@dataclass(frozen=True, kw_only=True)
class MatrixResults:
    """Everything that tables and figures are made of."""

    base: str
    """Name of the file that all configurations start from."""
    set: tuple[str, ...]
    """Changes to all of them."""
    splits: tuple[str, ...]
    """Pooled; `valid` is there beside them."""
    methods: tuple[str, ...]
    """Of all cells; one whose cell has others of its own has errors by those alone."""
    cells: tuple[CellConfig, ...]
    lengths: dict[str, list[int]]
    """Split -> reference units of each utterance, in the order of their ids."""
    references: dict[str, str]
    """Split -> hash of ids and reference texts."""
    runs: tuple[RunResult, ...]
    unit: UnitName = "character"
    """What errors are counted in; files of older versions do not say."""

    def first(self, cell: CellConfig) -> str:
        """The method of a cell that counts."""
        return (cell.methods or self.methods)[0]


@dataclass
class _References:
    """What all runs must agree on."""

    lengths: dict[str, list[int]] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    units: set[UnitName] = field(default_factory=set)

    def errors(self, split: str, result: Result) -> list[int]:
        """Errors by utterance; ValueError if others had other utterances."""
        ids = sorted(result.counts)
        text = "".join(f"{id_}\t{result.refs[id_]}\n" for id_ in ids)
        found = hashlib.sha256(text.encode()).hexdigest()[:12]
        if self.hashes.setdefault(split, found) != found:
            raise ValueError(f"{result.path} has other utterances than the results of other runs")
        self.units.add(result.unit.name)
        if len(self.units) > 1:
            raise ValueError(f"{result.path} counts {result.unit.plural}, other runs do not")
        self.lengths[split] = [result.counts[id_].num_ref for id_ in ids]
        return [result.counts[id_].errors for id_ in ids]


def collect(matrix: MatrixConfig, cells: Sequence[Cell], out: Path) -> MatrixResults:
    """The results of all runs of these cells in `out` that are decoded, of whatever seed.

    A run of another configuration, or decoded for something else, is left out, and said so.

    Raises:
        ValueError: there is none, or files are missing, damaged, or of different utterances.
    """
    references = _References()
    found = []
    for cell in cells:
        for seed in _seeds(out / cell.config.name):
            result = _result(matrix, out, Run(cell, seed), references)
            found += [] if result is None else [result]
    if not found:
        raise ValueError(f"there is no decoded run of this matrix in {out}")
    names = {result.cell for result in found}
    return MatrixResults(
        base=matrix.base,
        set=matrix.set,
        splits=matrix.splits,
        methods=matrix.all_methods(),
        cells=tuple(cell.config for cell in cells if cell.config.name in names),
        lengths=references.lengths,
        references=references.hashes,
        runs=tuple(found),
        unit=next(iter(references.units)),
    )


def write_results(path: Path, results: MatrixResults) -> None:
    """One JSON file, a line per run."""
    plain = asdict(results)
    lines = [json.dumps(run, ensure_ascii=False) for run in plain.pop("runs")]
    head = json.dumps(plain, ensure_ascii=False)[:-1]
    text = head + ', "runs": [\n' + ",\n".join(lines) + "\n]}\n"
    write_atomically(path, text.encode())


def read_results(path: Path) -> MatrixResults:
    """What `write_results` wrote.

    Raises:
        ValueError: the file is missing or damaged.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        cells = tuple(from_dict(CellConfig, cell) for cell in plain.pop("cells"))
        runs = tuple(RunResult(**run) for run in plain.pop("runs"))
        for name in ("set", "splits", "methods"):
            plain[name] = tuple(plain[name])
        results = MatrixResults(**plain, cells=cells, runs=runs)
        _check(results)
        return results
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} must be a results file of run_matrix.py: {error}") from None


def _seeds(folder: Path) -> list[int]:
    names = (path.parent.name for path in folder.glob("seed-*/run.json"))
    return sorted(int(name.removeprefix("seed-")) for name in names)


def _result(matrix: MatrixConfig, out: Path, run: Run, references: _References) -> RunResult | None:
    record = read_record(record_file(out, run.name))
    if record is None:
        return None
    every = {step.name: step for step in steps(run, matrix, Workplace(out, Path(), "", ""))}
    done = {name for name, step in every.items() if step.is_done(record)}
    other = differences(record, Record.of(run, {}))
    if other or not {"train", "decode"} <= done:
        _LOG.info("left out: %s, %s", run.name, f"made with {other[0]}" if other else "not decoded")
        return None
    folder, train = out / run.name, record.steps["train"]
    emission = {}
    if "stream" in done:
        for split in matrix.splits:
            name = ResultName("streaming", f"online-{stream_method(run, matrix)}")
            files = result_files(name.directory(folder), split)
            emission[split] = _json(files.summary)["latency"]["emission_ms"]
    similarity = _json(folder / "similarity-valid.json") if "similarity" in done else {}
    return RunResult(
        cell=record.cell,
        seed=record.seed,
        parameters=train["parameters"],
        commits={name: record.steps[name]["commit"] for name in every if name in done},
        device=train["device"],
        train_seconds=record.spent["train"],
        errors=_errors(matrix, run, folder, references),
        emission_ms=emission,
        similarity={name: gap for name, gap in similarity.items() if name != "weights"},
    )


def _errors(matrix: MatrixConfig, run: Run, folder: Path, references: _References) -> Errors:
    errors: Errors = {}
    branches = run.cell.experiment(run.seed).model.branches
    for branch in (branch for branch in BRANCHES if branch in branches):
        for method in matrix.methods_of(run.cell.config):
            splits = errors.setdefault(branch, {}).setdefault(method, {})
            for split in ("valid", *matrix.splits):
                files = result_files(ResultName(branch, method).directory(folder), split)
                splits[split] = references.errors(split, read_result(files.summary))
    return errors


def _check(results: MatrixResults) -> None:
    """ValueError unless every run has a number for each utterance of each split."""
    sizes = {split: len(results.lengths[split]) for split in ("valid", *results.splits)}
    for run in results.runs:
        for branch, methods in run.errors.items():
            for method, by_split in methods.items():
                found = {split: len(errors) for split, errors in by_split.items()}
                if found != sizes:
                    raise ValueError(
                        f"{run.cell} seed {run.seed} {branch} {method} must have {sizes} "
                        f"utterances, but has {found}"
                    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
