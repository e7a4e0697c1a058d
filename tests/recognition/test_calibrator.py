"""Calibrations: made on valid, kept, used again, and not for another model."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from dualasr_lib.decoding.hypothesis import Hypothesis, TokenPath
from dualasr_lib.recognition.calibration import Calibrator
from dualasr_lib.recognition.naming import ResultName

MODEL = {"model": "epoch 3", "scales": {"lm": 0.5}, "sizes": (1, 2)}


def detokenise(tokens: Sequence[int]) -> str:
    return "".join("_あい"[token] for token in tokens)


def hypotheses(ref: str = "ああ") -> list[Hypothesis]:
    def made(index: int) -> Hypothesis:
        tokens = (1, 2) if index % 4 == 0 else (1, 1)
        path = TokenPath(tokens, (0, 2), 0.0, (0.99, 0.6 if index % 4 == 0 else 0.9))
        return Hypothesis(f"u{index}", detokenise(tokens), ref, path, 1.0)

    return [made(index) for index in range(40)]


def test_made_on_valid_and_used_for_others(tmp_path: Path) -> None:
    calibrator = Calibrator(tmp_path / "calibration" / "x.json", MODEL)
    before = calibrator.settle(hypotheses(), detokenise, is_valid=False)
    assert before.calibration is None
    assert before.hypotheses[0].path.confidences == before.hypotheses[0].path.posteriors
    assert not calibrator.path.exists()
    valid = calibrator.settle(hypotheses(), detokenise, is_valid=True)
    again = calibrator.settle(hypotheses(), detokenise, is_valid=False)
    assert again == valid and again.calibration == calibrator.kept() is not None
    wrong, right = (valid.hypotheses[i].path.confidences[1] for i in (0, 1))
    assert wrong < 0.2 < 0.9 < right
    assert json.loads(calibrator.path.read_text())["fitted_on"] == {
        "split": "valid", "tokens": 80, "wrong": 10,
    }  # fmt: skip


def test_another_model_has_none(tmp_path: Path) -> None:
    Calibrator(tmp_path / "x.json", MODEL).settle(hypotheses(), detokenise, is_valid=True)
    assert Calibrator(tmp_path / "x.json", {**MODEL, "sizes": [1, 2]}).kept() is not None
    for change in ({"model": "epoch 4"}, {"scales": {}}, {"more": 1}):
        assert Calibrator(tmp_path / "x.json", {**MODEL, **change}).kept() is None


def test_valid_without_texts_leaves_no_file(tmp_path: Path) -> None:
    calibrator = Calibrator(tmp_path / "x.json", MODEL)
    assert calibrator.settle(hypotheses(ref=""), detokenise, is_valid=True).calibration is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"made_for": {}}', '{"made_for": {}, "calibration": {"slope": 1}}']
)
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match=r"x\.json is damaged .*decode split valid"):
        Calibrator(tmp_path / "x.json", MODEL).kept()


def test_streams_share_the_file_of_whole_utterances(tmp_path: Path) -> None:
    whole = ResultName("streaming", "1best", ("chunk160",))
    assert (
        whole.calibration_file(tmp_path) == tmp_path / "calibration/streaming-1best-chunk160.json"
    )
    for method in ("online-1best", "greedy", "online-greedy"):
        same = whole._replace(method=method)
        assert same.calibration_file(tmp_path) == whole.calibration_file(tmp_path)
    other = whole._replace(method="online-hlg")
    assert other.calibration_file(tmp_path).name == "streaming-hlg-chunk160.json"


def test_one_that_came_with_the_model_serves_until_another_is_made(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    Calibrator(path, MODEL).settle(hypotheses(), detokenise, is_valid=True)
    kept = json.loads(path.read_text())
    brought = [{**kept, "made_for": {"scales": {"lm": 0.5}, "older": 1}}]
    own = Calibrator(path, MODEL).kept()
    assert own is not None
    assert Calibrator(None, MODEL, brought).kept() == own
    assert Calibrator(tmp_path / "none.json", MODEL, brought).kept() == own
    assert Calibrator(None, {**MODEL, "scales": {}}, brought).kept() is None
    with pytest.raises(ValueError, match="that came with the model is damaged"):
        Calibrator(None, MODEL, [{"made_for": {}, "calibration": {"slope": 1}}]).kept()
