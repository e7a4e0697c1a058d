"""The model that comes with the package: found, small, and honest about itself. What it hears is
tested in test_shipped_model.py.
"""

from pathlib import Path

import pytest

from dualasr_lib.programs import bundle as program
from dualasr_lib.recognition import default
from dualasr_lib.recognition.bundle import read_contents
from dualasr_lib.recognition.default import default_bundle

LARGEST = 16_000_000
"""Bytes: it is downloaded with every installation, and stays in the history of the repository."""


def test_it_is_there_and_small() -> None:
    contents = read_contents(default_bundle())
    assert default_bundle().stat().st_size <= LARGEST
    assert contents.dtypes == ("float16",) and contents.num_weights > 1e6


def test_its_card_says_what_it_was_made_of_and_what_it_cannot_do() -> None:
    plain = read_contents(default_bundle()).plain
    for part in ("Apache-2.0", "Mei", "NIT ATR503 M001", "CC-BY 3.0"):
        assert part in plain["licence"]
    for part in ("small grammar", "synthetic speech", "recordings of people"):
        assert part in plain["card"]["limits"]
    results = plain["card"]["results"]
    for branch in ("streaming", "full"):
        splits = {row["split"] for row in results if row["branch"] == branch}
        assert {"eval1", "eval2", "eval3"} < splits, "its own data and others"
    assert all(low <= row["rate"] <= high for row in results for low, high in [row["interval"]])
    assert any(kept["branch"] == "full" for kept in plain["scales"].values())
    assert {kept["branch"] for kept in plain["calibration"].values()} == {"streaming", "full"}


def test_it_is_shown_where_no_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    program.main(["--show"])
    shown = capsys.readouterr().out
    program.main(["--show", str(default_bundle())])
    assert shown == capsys.readouterr().out and shown.startswith("default.dualasr: ")


def test_where_it_is_missing_one_line_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(default, "_BUNDLE", tmp_path / "default.dualasr")
    with pytest.raises(ValueError, match=r"is not there: install dualasr anew, or name a model of"):
        default_bundle()
