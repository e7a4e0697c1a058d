"""tools/bench_scale.py at a tiny size: the real start and the real n-gram, every row there."""

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("lhotse")
pytest.importorskip("sentencepiece")
pytest.importorskip("kaldingram")

import bench_scale

from dualasr_lib.data.manifest import read_entries


def test_all_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "rows.json"
    words = ["--utterances", 60, "--batches", 3, "--characters", 3000, "--order", 2]
    monkeypatch.setattr(sys, "argv", ["bench_scale.py", *map(str, words), "--json", str(report)])
    bench_scale.main()
    rows = json.loads(report.read_text(encoding="utf-8"))["rows"]
    found = {(row["case"], row["what"]): row["value"] for row in rows}
    prepared, known = found["60, prepared", "all lines"], found["60, start", "utterances known"]
    assert prepared > 0 and 0 < known < found["60, start", "first batch"]
    assert found["60, start", "a batch"] > 0
    for case in ("60, prepared", "60, start"):
        assert 0.05 < found[case, "peak memory"] < 4
    # 10,000 h are 3.6 million utterances of 10 s
    assert found["~10000 h, start", "first batch"] > 50_000 * known
    assert found["~10000 h, prepared", "all lines"] == pytest.approx(60_000 * prepared)
    assert found["2-gram, ~12 M", "training"] == pytest.approx(
        4000 * found["2-gram, 0.003 M", "training"]
    )
    assert "| ~10000 h, start" in capsys.readouterr().out


def test_extrapolation() -> None:
    assert bench_scale._line([2, 4, 6], [0.0, 5.0, 6.0], 10) == 8.0
    assert bench_scale._line([2], [3.0], 10) == 15.0


def test_made_up_utterances_are_a_manifest(tmp_path: Path) -> None:
    from bench.scale import SECONDS, write_data

    write_data(tmp_path, 1500)
    entries = list(read_entries(tmp_path / "cuts" / "train.jsonl.gz"))
    assert len({entry.id for entry in entries}) == 1500
    frames = [entry.num_frames for entry in entries]
    assert sum(frames) / len(frames) == pytest.approx(100 * SECONDS, rel=0.1)
    assert sum(len(entry.text) for entry in entries) / sum(frames) == pytest.approx(0.05, rel=0.15)


def test_no_utterances_are_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_scale.py", "--utterances", "0"])
    with pytest.raises(ValueError, match=r"--utterances must be at least 1, are \[0\]"):
        bench_scale.main()
