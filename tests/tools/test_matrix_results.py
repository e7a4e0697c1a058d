"""tools/run_matrix.py: results from run folders, statistics over seeds, tables, picture."""

import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("lhotse")
pytest.importorskip("sentencepiece")

import run_matrix
from analysis.matrix.folder import Record, record_file, write_record
from analysis.matrix.plan import Cell, CellConfig, CorpusConfig, MatrixConfig, Run, plan
from analysis.matrix.report import report
from analysis.matrix.results import MatrixResults, RunResult, collect, read_results, write_results
from analysis.matrix.statistics import Table
from analysis.matrix.steps import Workplace, steps

from dualasr_lib.decoding.hypothesis import Hypothesis, TokenPath
from dualasr_lib.decoding.offline import Decoded
from dualasr_lib.decoding.summary import RunInfo, offline_summary
from dualasr_lib.decoding.writer import result_files
from dualasr_lib.decoding.writer import write_results as write_decoded
from dualasr_lib.metrics.bootstrap import relative_cerr_interval, relative_cerr_over_seeds
from dualasr_lib.metrics.significance import holm

ROOT = Path(__file__).parents[2]
CONF = ROOT / "egs/csj/conf"
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
    set=("training.max_steps=9",),
    splits=SPLITS,
    methods=("1best",),
    cells=MATRIX.cell,
    lengths={split: [5, 7, 3] for split in ("valid", *SPLITS)},
    references=dict.fromkeys(("valid", *SPLITS), "0123"),
    runs=(
        run_result("standalone-streaming", 0, {"streaming": [4, 4, 0]}),
        run_result("standalone-streaming", 1, {"streaming": [4, 4, 0]}),
        run_result("joint", 0, {"streaming": [2, 2, 0], "full": [1, 0, 0]}),
        run_result("joint", 1, {"streaming": [2, 2, 0], "full": [1, 1, 0]}),
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
    (found,) = Table(RESULTS).comparisons("main", "1best")
    assert (found.cell, found.baseline, found.branch) == (
        *("joint", "standalone-streaming"),
        "streaming",
    )
    assert (found.better, found.seeds) == (2, 2)
    base = [[4, 4, 0, 4, 4, 0]] * 2
    system = [[2, 2, 0, 2, 2, 0]] * 2
    assert found.both == relative_cerr_over_seeds(base, system)
    summed = [[sum(column) for column in zip(*rows)] for rows in (base, system)]
    assert found.utterances == relative_cerr_interval(*summed)
    assert found.splits == pytest.approx({"eval1": 0.5, "eval2": 0.5})
    assert found.significant is True
    alone = replace(RESULTS, runs=RESULTS.runs[::2])
    (single,) = Table(alone).comparisons("main", "1best")
    assert single.seeds == 1 and single.significant is None


def test_a_wide_spread_is_not_significant() -> None:
    worse = run_result("joint", 1, {"streaming": [5, 7, 2]})
    results = replace(RESULTS, runs=(*RESULTS.runs[:3], worse))
    (found,) = Table(results).comparisons("main", "1best")
    assert found.better == 1
    assert found.significant is False


def test_a_primary_comparison_stands_alone_and_others_are_corrected() -> None:
    """Three comparisons of two branches; the primary one of each branch keeps its p-value."""
    joint = replace(
        MATRIX.cell[1],
        against=("standalone-{branch}", "rival"),
        primary="standalone-{branch}",
    )
    rivals = (
        *(run_result("rival", k, {"streaming": [5, 4 + k, 1], "full": [2, 2, k]}) for k in (0, 1)),
        *(run_result("standalone-full", k, {"full": [4, 3 + k, 1]}) for k in (0, 1)),
    )
    cells = (MATRIX.cell[0], joint, MATRIX.cell[2], CellConfig(name="rival", config="sp_kd.toml"))
    results = replace(RESULTS, cells=cells, runs=(*RESULTS.runs, *rivals))
    found = Table(results).comparisons("main", "1best")
    assert [(f.branch, f.baseline, f.primary) for f in found] == [
        ("streaming", "standalone-streaming", True),
        ("streaming", "rival", False),
        ("full", "standalone-full", True),
        ("full", "rival", False),
    ]
    assert all(f.p is not None for f in found)
    assert [f.corrected for f in found if f.primary] == [f.p for f in found if f.primary]
    secondary = [f for f in found if not f.primary]
    assert [f.corrected for f in secondary] == holm([f.p for f in secondary])
    assert [f.corrected for f in secondary] != [f.p for f in secondary]
    lines = [line for line in report(Table(results)).splitlines() if " rival " in line]
    assert not any("primary" in line for line in lines)
    assert sum("| primary |" in line for line in report(Table(results)).splitlines()) == 2
    alone = Table(replace(results, cells=(cells[0], replace(joint, primary=""), *cells[2:])))
    assert [f.corrected for f in alone.comparisons("main", "1best")] == holm([f.p for f in found])


def test_cells_have_methods_of_their_own() -> None:
    """A cell is compared with a baseline's other method, and with its own other one, by its first
    method; by further ones where both have them.
    """
    counts = [[4, 4, 0], [2, 1, 0], [3, 3, 1]]
    splits = ("valid", *SPLITS)

    def made(cell: str, **errors: list[int]) -> RunResult:
        by_method = {m.replace("_", "-"): dict.fromkeys(splits, e) for m, e in errors.items()}
        return replace(run_result(cell, 0, {}), errors={"streaming": by_method})

    beam = ("transducer-beam", "1best")
    cells = (
        CellConfig(name="ctc", config="sp_kd.toml"),
        CellConfig(
            name="both",
            config="sp_kd.toml",
            methods=beam,
            against=("ctc", "ctc:1best", "both:1best"),
        ),
    )
    ctc = replace(made("ctc"), errors={"streaming": {"1best": dict.fromkeys(splits, counts[0])}})
    both = made("both", transducer_beam=counts[1], one=counts[2])
    both.errors["streaming"]["1best"] = both.errors["streaming"].pop("one")
    results = replace(RESULTS, cells=cells, runs=(ctc, both), methods=("1best", "transducer-beam"))
    table = Table(results)
    found = table.comparisons("main", "transducer-beam")
    assert [(f.cell, f.baseline) for f in found] == [("both", "ctc:1best"), ("both", "both:1best")]
    assert [f.splits["eval1"] for f in found] == pytest.approx([1 - 3 / 8, 1 - 3 / 7])
    (same,) = table.comparisons("main", "1best")
    assert (same.baseline, same.splits["eval1"]) == ("ctc", pytest.approx(1 - 7 / 8))
    lines = [[c.strip() for c in line.split("|")[1:-1]] for line in report(table).splitlines()]
    names = [line[0] for line in lines if line[:1] and line[0].startswith(("ctc (", "both ("))]
    assert names == ["ctc (1best)", "both (transducer-beam)"]
    head = next(line for line in lines if line[:1] == ["cell"])
    ctc_line = next(line for line in lines if line[:1] == ["ctc (1best)"])
    assert ctc_line[head.index("transducer-beam: all")] == "-"


def test_the_report_has_the_numbers() -> None:
    text = report(Table(RESULTS))
    lines = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines()]
    joint = next(line for line in lines if line[:1] == ["joint"])
    assert joint[:3] == ["joint", "3.00 M", "0 1 2"]
    assert "42.22 ± 26.94" in joint and "26.67 26.67 73.33" in joint and "110/200" in joint
    compared = next(line for line in lines if line[:2] == ["streaming", "joint"])
    assert compared[2:4] == ["standalone-streaming", "**+50.0**"]
    assert "2 of 2" in compared
    assert "5 runs from demo.toml training.max_steps=9 on cpu" in text
    assert "eval1 + eval2: 6 utterances, 30 characters" in text
    assert "- CER in %: mean" in text
    words = report(Table(replace(RESULTS, unit="word")))
    assert "- WER in %: mean" in words and "30 words" in words


def test_results_come_back_from_json(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, RESULTS)
    assert read_results(path) == RESULTS
    program = [sys.executable, str(ROOT / "tools/run_matrix.py"), "--from-json", str(path)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert report(Table(RESULTS)) in done.stdout
    path.write_text("{}")
    with pytest.raises(ValueError, match="must be a results file"):
        read_results(path)


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from analysis.matrix.drawing import draw

    draw(Table(RESULTS), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="nothing to draw"):
        draw(Table(replace(RESULTS, runs=RESULTS.runs[:2])), tmp_path / "b.png")


def decoded_run(
    out: Path, matrix: MatrixConfig, run: Run, wrong: str = "", refs: dict[str, str] = REFS
) -> None:
    """A run folder as the programs leave it: one error per utterance in `wrong`."""
    record = Record.of(run, {})
    record.steps = {
        step.name: {
            "commit": step.name[:3],
            "parameters": 9,
            "device": "cpu",
            "asked": step.asked,
        }
        for step in steps(run, matrix, Workplace(out, out, "cpu", "cpu"))[:2]
    }
    record.spent = {"train": 2.0}
    write_record(record_file(out, run.name), record)
    for branch in record.config["model"]["branches"]:
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


def small_matrix(folder: Path, *assignments: str) -> tuple[MatrixConfig, list[Cell]]:
    """Two cells, two splits, one method."""
    (folder / "m.toml").write_text(
        f'base = "{CONF / "demo.toml"}"\nsplits = ["eval1", "eval2"]\nmethods = ["1best"]\n'
        'corpus = { preset = "demo" }\n'
        f'[[cell]]\nname = "standalone-streaming"\nconfig = "{CONF}/standalone_streaming.toml"\n'
        f'[[cell]]\nname = "joint"\nconfig = "{CONF}/sp_kd.toml"\n'
        'against = ["standalone-streaming"]\n'
    )
    return plan(folder / "m.toml", None, assignments)


def test_a_cell_is_decoded_with_its_own_methods(tmp_path: Path) -> None:
    beam = CellConfig(
        name="beam", config=f"{CONF}/multi_decoder.toml", methods=("transducer-beam", "attention")
    )
    matrix = replace(MATRIX, cell=(*MATRIX.cell, beam))
    commands = {}
    for cell in (MATRIX.cell[1], beam):
        run = Run(Cell(cell, CONF / cell.config, CONF / "demo.toml", ()), 0)
        every = steps(run, matrix, Workplace(tmp_path, tmp_path, "cpu", "cpu"))
        commands[cell.name] = {step.name: step for step in every}
    decode, stream = (commands["beam"][name] for name in ("decode", "stream"))
    at = decode.command.index("--method")
    assert decode.command[at + 1 : at + 3] == ("transducer-beam", "attention")
    assert stream.command[stream.command.index("--method") + 1] == "transducer-beam"
    assert stream.asked == {"splits": list(SPLITS), "method": "transducer-beam"}
    assert commands["joint"]["stream"].asked == {"splits": list(SPLITS)}
    assert matrix.all_methods() == ("1best", "transducer-beam", "attention")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"methods": ("beam",)}, "methods must be some of"),
        ({"methods": ("1best", "1best")}, "methods must be different ones"),
        ({"against": ("joint:attention",)}, "is against method 'attention' of 'joint', which"),
    ],
)
def test_methods_that_cannot_be(cell: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(MATRIX, cell=(*MATRIX.cell, CellConfig(name="a", config="x.toml", **cell)))


def test_results_are_collected_from_folders(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    matrix, cells = small_matrix(tmp_path)
    with pytest.raises(ValueError, match="no decoded run"):
        collect(matrix, cells, tmp_path)
    alone, joint = cells
    decoded_run(tmp_path, matrix, Run(alone, 0), "u1 u2")
    decoded_run(tmp_path, matrix, Run(joint, 3), "u2")
    results = collect(matrix, cells, tmp_path)
    assert [(run.cell, run.seed) for run in results.runs] == [
        ("standalone-streaming", 0),
        ("joint", 3),
    ]
    assert results.base == "demo.toml"
    assert results.lengths["eval1"] == [5, 7, 3]
    assert results.runs[0].errors == {
        "streaming": {"1best": {split: [1, 1, 0] for split in ("valid", *SPLITS)}}
    }
    assert results.runs[1].errors["full"]["1best"]["eval2"] == [0, 1, 0]
    assert results.runs[1].parameters == 9 and results.runs[1].commits["decode"] == "dec"

    other = small_matrix(tmp_path, "training.max_steps=5")[1]
    decoded_run(tmp_path, matrix, Run(other[1], 4), "u1")
    decoded_run(tmp_path, replace(matrix, splits=("eval1",)), Run(joint, 5))
    with caplog.at_level(logging.INFO):
        assert collect(matrix, cells, tmp_path) == results
    assert "joint/seed-4, made with config.training.max_steps: 5, now 2300" in caplog.text
    assert "joint/seed-5, not decoded" in caplog.text


def test_results_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    matrix, cells = small_matrix(tmp_path)
    decoded_run(tmp_path, matrix, Run(cells[0], 0))
    decoded_run(tmp_path, matrix, Run(cells[1], 0), refs={**REFS, "u1": "あい"})
    with pytest.raises(ValueError, match="other utterances"):
        collect(matrix, cells, tmp_path)
    folder = tmp_path / "joint/seed-0/decode/streaming-1best"
    summary = result_files(folder, "eval2").summary
    values = json.loads(summary.read_text())
    summary.write_text(json.dumps({**values, "sub": 99}))
    with pytest.raises(ValueError, match="must belong to"):
        collect(matrix, cells[1:], tmp_path)


def test_tables_without_running_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--report-only makes files from the folders; a lone cell has no picture, which is no error."""
    matrix, cells = small_matrix(tmp_path)
    decoded_run(tmp_path, matrix, Run(cells[0], 0), "u1")
    options = ["--matrix", tmp_path / "m.toml", "--out", tmp_path, "--report-only"]
    monkeypatch.setattr(sys, "argv", ["run_matrix.py", *map(str, options)])
    (tmp_path / "results.png").touch()
    run_matrix.main()
    assert not (tmp_path / "results.png").exists()
    decoded_run(tmp_path, matrix, Run(cells[1], 0))
    run_matrix.main()
    assert (tmp_path / "results.png").stat().st_size > 1000
    assert (tmp_path / "results.md").read_text() in capsys.readouterr().out
    assert read_results(tmp_path / "results.json") == collect(matrix, cells, tmp_path)
