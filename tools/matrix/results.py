"""Results of a matrix, read from its run folders, and as one JSON file that has all that the tables
are made of: errors by utterance, latencies, and where each number comes from.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from compare import Result, read_result

from dualasr_lib.config import from_dict
from dualasr_lib.decoding.writer import result_files
from dualasr_lib.files import write_atomically
from dualasr_lib.model.joint import BRANCHES
from matrix.folder import read_record, record_file
from matrix.plan import CellConfig, MatrixConfig, Run

__all__ = ["MatrixResults", "RunResult", "collect", "read_results", "write_results"]

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
    splits: tuple[str, ...]
    """Pooled; `valid` is there beside them."""
    methods: tuple[str, ...]
    cells: tuple[CellConfig, ...]
    lengths: dict[str, list[int]]
    """Split -> reference characters of each utterance, in the order of their ids."""
    references: dict[str, str]
    """Split -> hash of ids and reference texts."""
    runs: tuple[RunResult, ...]


@dataclass
class _References:
    """What all runs must agree on."""

    lengths: dict[str, list[int]] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)

    def errors(self, split: str, result: Result) -> list[int]:
        """Errors by utterance; ValueError if others had other utterances."""
        ids = sorted(result.counts)
        text = "".join(f"{id_}\t{result.refs[id_]}\n" for id_ in ids)
        found = hashlib.sha256(text.encode()).hexdigest()[:12]
        if self.hashes.setdefault(split, found) != found:
            raise ValueError(f"{result.path} has other utterances than the results of other runs")
        self.lengths[split] = [result.counts[id_].num_ref_chars for id_ in ids]
        return [result.counts[id_].errors for id_ in ids]


def collect(matrix: MatrixConfig, out: Path, runs: Sequence[Run]) -> MatrixResults:
    """The results of those of `runs` that have been decoded.

    Raises:
        ValueError: there is none, or files are missing, damaged, or of different utterances.
    """
    references = _References()
    found = [
        result for run in runs if (result := _result(matrix, out, run, references)) is not None
    ]
    if not found:
        raise ValueError(f"there is no decoded run of this matrix in {out}")
    names = {result.cell for result in found}
    return MatrixResults(
        base=matrix.base,
        splits=matrix.splits,
        methods=matrix.methods,
        cells=tuple(cell for cell in matrix.cell if cell.name in names),
        lengths=references.lengths,
        references=references.hashes,
        runs=tuple(found),
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
        for name in ("splits", "methods"):
            plain[name] = tuple(plain[name])
        return MatrixResults(**plain, cells=cells, runs=runs)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} must be a results file of run_matrix.py: {error}") from None


def _result(matrix: MatrixConfig, out: Path, run: Run, references: _References) -> RunResult | None:
    record = read_record(record_file(out, run.name))
    if record is None or "decode" not in record.steps:
        return None
    folder, train = out / run.name, record.steps["train"]
    branches = [branch for branch in BRANCHES if branch in record.config["model"]["branches"]]
    errors: Errors = {}
    for branch in branches:
        for method in matrix.methods:
            splits = errors.setdefault(branch, {}).setdefault(method, {})
            for split in ("valid", *matrix.splits):
                files = result_files(folder / "decode" / f"{branch}-{method}", split)
                splits[split] = references.errors(split, read_result(files.summary))
    emission = {}
    if "stream" in record.steps:
        for split in matrix.splits:
            files = result_files(folder / "decode" / "streaming-online-1best", split)
            emission[split] = _json(files.summary)["latency"]["emission_ms"]
    similarity = {}
    if "similarity" in record.steps:
        similarity = _json(folder / "similarity-valid.json")
        del similarity["weights"]
    return RunResult(
        cell=record.cell,
        seed=record.seed,
        parameters=train["parameters"],
        commits={name: step["commit"] for name, step in record.steps.items()},
        device=train["device"],
        train_seconds=train["seconds"],
        errors=errors,
        emission_ms=emission,
        similarity=similarity,
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); remove run.json's step") from None
