"""Results of one data folder are not written over those of another one."""

import json
from pathlib import Path

import pytest

from dualasr_lib.programs.results import check_place


@pytest.mark.parametrize("splits", [("eval1",), ("valid", "eval1")])
def test_results_of_other_data_stay(tmp_path: Path, splits: tuple[str, ...]) -> None:
    summary = tmp_path / "summary-eval1.json"
    check_place(tmp_path, splits, "aa")
    summary.write_text(json.dumps({"data": "aa"}), encoding="utf-8")
    check_place(tmp_path, splits, "aa")
    check_place(tmp_path, ("eval2",), "bb")
    with pytest.raises(ValueError, match=r"summary-eval1\.json is of another data folder \(aa\)"):
        check_place(tmp_path, splits, "bb")


@pytest.mark.parametrize("content", ["{}", '{"data": ""}', "[]", "{", ""])
def test_what_says_nothing_of_its_data_may_go(tmp_path: Path, content: str) -> None:
    (tmp_path / "summary-eval1.json").write_text(content, encoding="utf-8")
    check_place(tmp_path, ("eval1",), "bb")
