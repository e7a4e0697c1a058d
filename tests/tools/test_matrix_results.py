"""tools/run_matrix.py: results from run folders, statistics over seeds, tables, picture."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("lhotse")
pytest.importorskip("sentencepiece")

from matrix.folder import Record, record_file, write_record
from matrix.plan import CellConfig, CorpusConfig, MatrixConfig, Run, plan, runs
from matrix.report import report
from matrix.results import MatrixResults, RunResult, collect, read_results, write_results
from matrix.statistics import Table, comparisons

from dualasr_lib.decoding.hypothesis import Hypothesis, TokenPath
from dualasr_lib.decoding.offline import Decoded
from dualasr_lib.decoding.summary import RunInfo, offline_summary
from dualasr_lib.decoding.writer import result_files
from dualasr_lib.decoding.writer import write_results as write_decoded
from dualasr_lib.metrics.bootstrap import relative_cerr_interval, relative_cerr_over_seeds

ROOT = Path(__file__).parents[2]
REFS = {"u1": "あいうえお", "u2": "かきくけこさし", "u3": "たちつ"}
SPLITS = ("eval1", "eval2")
MATRIX = MatrixConfig(
    base="demo.toml",
    corpus=CorpusConfig(preset="demo"),
    splits=SPLITS,
    methods=("1best",),
    cell=(
        CellConfig(name="standalone-streaming", config="standalone_streaming.toml"),
        CellConfig(name="joint", config="sp_kd.toml", against=("standalone-{branch}",)),
        CellConfig(name="standalone-full", config="standalone_full.toml"),
    ),
)


def run_result(cell: str, seed: int, errors: dict[str, list[int]]) -> RunResult:
    """Branch -> errors by utterance, the same on every split."""
    splits = ("valid", *SPLITS)
    return RunResult(
        cell=cell,
        seed=seed,
        parameters=3_000_000,
        commits={"train": "abc"},
        device="cpu",
        train_seconds=60.0,
        errors={
            branch: {"1best": dict.fromkeys(splits, counts)} for branch, counts in errors.items()
        },
        emission_ms={split: {"p50": 100.0 + 10 * seed, "p90": 200.0} for split in SPLITS}
        if "streaming" in errors
        else {},
        similarity={"encoder_utterance": 0.25} if len(errors) == 2 else {},
    )


RESULTS = MatrixResults(
    base="demo.toml",
    splits=SPLITS,
    methods=("1best",),
    cells=MATRIX.cell,
    lengths={split: [5, 7, 3] for split in ("valid", *SPLITS)},
    references=dict.fromkeys(("valid", *SPLITS), "0123"),
    runs=(
        run_result("standalone-streaming", 0, {"streaming": [4, 4, 0]}),
        run_result("standalone-streaming", 1, {"streaming": [4, 3, 1]}),
        run_result("joint", 0, {"streaming": [2, 2, 0], "full": [1, 0, 0]}),
        run_result("joint", 1, {"streaming": [2, 1, 1], "full": [1, 1, 0]}),
        run_result("joint", 2, {"streaming": [5, 5, 1], "full": [1, 1, 0]}),
    ),
)


def test_rates_over_seeds() -> None:
    table = Table(RESULTS)
    rate = table.rate("joint", "streaming", "1best", SPLITS)
    assert rate.seeds == pytest.approx((8 / 30, 8 / 30, 22 / 30))
    assert rate.mean == pytest.approx(38 / 90)
    assert rate.spread == pytest.approx(14 / 30 / 3**0.5)
    assert table.emission("joint", "p50") == 110.0
    assert table.similarity("joint", "encoder_utterance") == 0.25
    assert table.similarity("standalone-streaming", "encoder_utterance") is None


def test_comparisons_take_the_seeds_that_both_have() -> None:
    (found,) = comparisons(Table(RESULTS), "main", "1best")
    assert (found.cell, found.baseline, found.branch) == (
        *("joint", "standalone-streaming"),
        "streaming",
    )
    assert (found.better, found.seeds) == (2, 2)
    base = [[4, 4, 0, 4, 4, 0], [4, 3, 1, 4, 3, 1]]
    system = [[2, 2, 0, 2, 2, 0], [2, 1, 1, 2, 1, 1]]
    assert found.both == relative_cerr_over_seeds(base, system)
    summed = [[sum(column) for column in zip(*rows)] for rows in (base, system)]
    assert found.utterances == relative_cerr_interval(*summed)
    assert found.splits == pytest.approx({"eval1": 0.5, "eval2": 0.5})
    assert found.significant is True
    alone = replace(RESULTS, runs=RESULTS.runs[::2])
    (single,) = comparisons(Table(alone), "main", "1best")
    assert single.seeds == 1 and single.significant is None


def test_a_wide_spread_is_not_significant() -> None:
    worse = run_result("joint", 1, {"streaming": [5, 7, 2]})
    results = replace(RESULTS, runs=(*RESULTS.runs[:3], worse))
    (found,) = comparisons(Table(results), "main", "1best")
    assert found.better == 1
    assert found.significant is False


def test_the_report_has_the_numbers(tmp_path: Path) -> None:
    text = report(RESULTS)
    lines = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines()]
    joint = next(line for line in lines if line[:1] == ["joint"])
    assert joint[:3] == ["joint", "3.00 M", "0 1 2"]
    assert "42.22 ± 26.94" in joint and "26.67 26.67 73.33" in joint and "110/200" in joint
    compared = next(line for line in lines if line[:2] == ["streaming", "joint"])
    assert compared[2:4] == ["standalone-streaming", "**+50.0**"]
    assert "2 of 2" in compared
    assert "5 runs from demo.toml on cpu" in text
    assert "eval1 + eval2: 6 utterances, 30 characters" in text


def test_results_come_back_from_json(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, RESULTS)
    assert read_results(path) == RESULTS
    program = [sys.executable, str(ROOT / "tools/run_matrix.py"), "--from-json", str(path)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert report(RESULTS) in done.stdout
    path.write_text("{}")
    with pytest.raises(ValueError, match="must be a results file"):
        read_results(path)


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from matrix.drawing import draw

    draw(RESULTS, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="nothing to draw"):
        draw(replace(RESULTS, runs=RESULTS.runs[:2]), tmp_path / "b.png")


def decoded_run(out: Path, run: Run, wrong: str = "", refs: dict[str, str] = REFS) -> None:
    """A run folder as the programs leave it: one error per utterance in `wrong`."""
    record = Record.of(run, {})
    record.steps = {
        name: {"commit": name[:3], "parameters": 9, "device": "cpu", "seconds": 2.0}
        for name in ("train", "decode")
    }
    write_record(record_file(out, run.name), record)
    branches = record.config["model"]["branches"]
    for branch in branches:
        for split in ("valid", *SPLITS):
            hypotheses = [
                Hypothesis(
                    id=id_,
                    text=ref[1:] if id_ in wrong else ref,
                    ref=ref,
                    path=TokenPath((), (), 0.0),
                    duration=1.0,
                )
                for id_, ref in refs.items()
            ]
            info = RunInfo(split, branch, "1best", {})
            summary = offline_summary(info, Decoded(hypotheses, 3.0, 1.0, 0, 1))
            write_decoded(out / run.name / "decode" / f"{branch}-1best", hypotheses, summary)


def test_results_are_collected_from_folders(tmp_path: Path) -> None:
    conf = ROOT / "egs/csj/conf"
    _, cells = plan(conf / "matrix.toml", conf / "demo.toml", [])
    found = runs(cells, [0, 1], [], ["standalone-streaming", "sp-kd"])
    names = ("standalone-streaming", "sp-kd")
    matrix = replace(MATRIX, cell=tuple(CellConfig(name=name, config="") for name in names))
    with pytest.raises(ValueError, match="no decoded run"):
        collect(matrix, tmp_path, found)
    decoded_run(tmp_path, found[0], "u1 u2")
    decoded_run(tmp_path, found[1], "u2")
    results = collect(matrix, tmp_path, found)
    assert [(run.cell, run.seed) for run in results.runs] == [
        ("standalone-streaming", 0),
        ("sp-kd", 0),
    ]
    assert results.lengths["eval1"] == [5, 7, 3]
    assert results.runs[0].errors == {
        "streaming": {"1best": {split: [1, 1, 0] for split in ("valid", *SPLITS)}}
    }
    assert results.runs[1].errors["full"]["1best"]["eval2"] == [0, 1, 0]
    assert results.runs[1].parameters == 9 and results.runs[1].commits["decode"] == "dec"

    decoded_run(tmp_path, found[2], refs={**REFS, "u1": "あい"})
    with pytest.raises(ValueError, match="other utterances"):
        collect(matrix, tmp_path, found)
    summary = result_files(tmp_path / found[2].name / "decode/streaming-1best", "eval2").summary
    values = json.loads(summary.read_text())
    summary.write_text(json.dumps({**values, "sub": 99}))
    with pytest.raises(ValueError, match="must belong to"):
        collect(matrix, tmp_path, found[2:])
