"""tools/analysis/calibration.py: its table from files, its intervals, and what it refuses."""

import json
from pathlib import Path

import pytest
from analysis import calibration

from dualasr_lib.decoding.confidence_files import Confident, format_confidence
from dualasr_lib.metrics.calibration import Calibration

KNOWN = Calibration(slope=1.0, offset=0.0, mean=0.9, floor=0.7)
TEXTS = [
    Confident("a", ["あ", "い"], [0.0, 0.4], [0.9, 0.5], [0.8, 0.4], [True, False]),
    Confident("b", ["う"] * 9, [0.0] * 9, [0.1] * 9, [0.1] * 9, None),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    results = tmp_path / "full-1best"
    results.mkdir()
    content = format_confidence(TEXTS, KNOWN)
    (results / "confidence-eval1.json").write_text(content, encoding="utf-8")
    (results / "confidence-eval2.json").write_text(format_confidence(TEXTS, None), encoding="utf-8")
    return results


def test_rows(folder: Path) -> None:
    known, bare = (
        calibration.row(calibration.read_split(folder / f"confidence-{split}.json"))
        for split in ("eval1", "eval2")
    )
    assert known == (
        "full-1best", "eval1", "2", "50.00", "70.00", "60.00", "0.300", "0.300",
        "0.424", "0.471", "2", "1",
    )  # fmt: skip
    assert bare[-1] == "-"
    assert len(known) == len(calibration.HEADER)


def test_transcripts(tmp_path: Path) -> None:
    segments = [{"tokens": [{"confidence": 0.5}, {"confidence": 0.7}]}, {"tokens": []}]
    for name, far in {"a": True, "b": False, "c": None}.items():
        document = {"segments": segments, "out_of_domain": far}
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    row = calibration.transcripts_row("English", tmp_path)
    assert (row[0], row[2], row[5], *row[-2:]) == (
        "English", "6", "60.00", "3", "1 (1 without verdict)",
    )  # fmt: skip
    assert len(row) == len(calibration.HEADER)
    (tmp_path / "d.json").write_text("[]")
    with pytest.raises(ValueError, match=r"d\.json must be of dualasr-transcribe"):
        calibration.transcripts_row("English", tmp_path)
    with pytest.raises(ValueError, match="has none"):
        calibration.transcripts_row("English", tmp_path / "missing")


@pytest.mark.parametrize(
    ("share", "size", "low", "high"),  # of Wilson's formula, as statistics tables have them
    [(0.5, 10, 0.237, 0.763), (1.0, 10, 0.722, 1.0), (0.0, 10, 0.0, 0.278)],
)  # fmt: skip
def test_wilson(share: float, size: int, low: float, high: float) -> None:
    assert calibration.wilson(share, size) == pytest.approx((low, high), abs=0.001)


def test_picture(folder: Path, tmp_path: Path) -> None:
    splits = [calibration.read_split(path) for path in sorted(folder.glob("*.json"))]
    calibration.draw(splits, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"
