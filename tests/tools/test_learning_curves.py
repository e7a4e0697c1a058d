"""tools/learning_curves.py: curves from run folders, their file, the table."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("lhotse")
pytest.importorskip("sentencepiece")

from analysis.matrix.folder import Record, write_record
from learning_curves import collect, read_curves, table, united, write_curves

ROOT = Path(__file__).parents[2]


def run(out: Path, cell: str, seed: int, scores: dict[int, dict[str, float]]) -> None:
    """A run folder as run_matrix.py and train.py leave it."""
    folder = out / cell / f"seed-{seed}"
    folder.mkdir(parents=True)
    command = f"python train.py --config x.toml --set a.b=1 'c={{\"d\": 2}}' --data-dir {out}"
    record = Record(cell=cell, seed=seed, config={}, data={}, spent={"train": 60.0})
    record.steps["train"] = {"command": command, "commit": "abc123"}
    write_record(folder / "run.json", record)
    points = [{"step": 50, "train/loss": 1.5}]
    points += [
        {"step": step, **{f"valid/cer_{branch}": cer for branch, cer in found.items()}}
        for step, found in scores.items()
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    run(out, "all", 0, {300: {"streaming": 30.0}, 600: {"streaming": 10.0}})
    run(out, "all", 1, {300: {"streaming": 34.0}, 600: {"streaming": 12.0}})
    run(out, "joint", 0, {300: {"streaming": 40.0, "full": 20.0}})
    unfinished = Record(cell="all", seed=2, config={}, data={})
    (out / "all" / "seed-2").mkdir()
    write_record(out / "all" / "seed-2" / "run.json", unfinished)
    return out


def test_table_of_finished_runs(runs: Path) -> None:
    curves = collect(runs)
    assert [(c.cell, c.seed, c.branch) for c in curves] == [
        ("all", 0, "streaming"),
        ("all", 1, "streaming"),
        ("joint", 0, "streaming"),
        ("joint", 0, "full"),
    ]
    assert curves[0].set == ("a.b=1", 'c={"d": 2}')
    streaming = [curve for curve in curves if curve.branch == "streaming"]
    head, both, joint = table(streaming, [300, 600])
    assert head[:4] == ("cell", "seeds", "300 updates", "600 updates")
    assert both == ("all", "0 1", "32.0 ± 2.8", "11.0 ± 1.4", "10.0 12.0")
    assert joint == ("joint", "0", "40.0", "-", "")


def test_the_file_gives_the_same_tables(runs: Path, tmp_path: Path) -> None:
    path = tmp_path / "curves.json"
    write_curves(path, collect(runs))
    assert read_curves(path) == collect(runs)
    program = [sys.executable, str(ROOT / "tools/learning_curves.py"), "--steps", "300"]
    printed = [
        subprocess.run([*program, *source], check=True, capture_output=True, text=True).stdout
        for source in (["--out", str(runs)], ["--from-json", str(path)])
    ]
    assert printed[0] == printed[1]
    assert "32.0 ± 2.8" in printed[0] and "full branch" in printed[0] and "abc123" in printed[0]


def test_newer_runs_join_the_older_ones_or_take_their_place(runs: Path, tmp_path: Path) -> None:
    older = collect(runs)
    run(tmp_path / "more", "all", 1, {600: {"streaming": 9.0}})
    run(tmp_path / "more", "all", 2, {600: {"streaming": 8.0}})
    found = united(older, collect(tmp_path / "more"))
    key = [(curve.cell, curve.seed, curve.branch, curve.cer.get(600)) for curve in found]
    assert key == [
        ("all", 0, "streaming", 10.0),
        ("all", 1, "streaming", 9.0),
        ("all", 2, "streaming", 8.0),
        ("joint", 0, "streaming", None),
        ("joint", 0, "full", None),
    ]


def test_what_is_missing_or_damaged_is_named(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no finished training"):
        collect(tmp_path)
    (runs / "joint/seed-0/log.jsonl").write_text("no json")
    with pytest.raises(ValueError, match=r"log.jsonl must be the log of a training"):
        collect(runs)
    for text in ("{}", '[{"cell": "a"}]', "x"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=r"bad.json must be a file"):
            read_curves(tmp_path / "bad.json")
