"""What files and summaries say of confidence: by hand, and back again."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from dualasr_lib.decoding.confidence_files import (
    calibrated,
    confidence_summary,
    confident_texts,
    far_from_valid,
    format_confidence,
    read_confidence,
)
from dualasr_lib.decoding.hypothesis import Hypothesis, TokenPath
from dualasr_lib.metrics.calibration import Calibration

KNOWN = Calibration(slope=1.0, offset=0.0, mean=0.9, floor=0.7)


def detokenise(tokens: Sequence[int]) -> str:
    return "".join("_あい"[token] for token in tokens)


def hypothesis(id_: str, ref: str, tokens: tuple[int, ...], sure: tuple[float, ...]) -> Hypothesis:
    path = TokenPath(tokens, tuple(range(5, 5 + len(tokens))), 0.0, sure)
    return calibrated(Hypothesis(id_, detokenise(tokens), ref, path, 1.0), KNOWN)


HYPOTHESES = [
    hypothesis("b", "あい", (1, 1), (0.95, 0.65)),
    hypothesis("a", "", (2,), (0.75,)),
    hypothesis("c", "あ", (), ()),
]


def test_written_and_read_again(tmp_path: Path) -> None:
    texts = confident_texts(HYPOTHESES, detokenise)
    assert [text.id for text in texts] == ["a", "b", "c"]
    assert texts[1].tokens == ["あ", "あ"]
    assert texts[1].start_seconds == [0.2, 0.24]
    assert texts[1].correct == [True, False]
    assert texts[0].correct is None
    path = tmp_path / "confidence-x.json"
    path.write_text(format_confidence(texts, KNOWN), encoding="utf-8")
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["calibrated"] is True
    assert document["utterances"]["b"]["confidence"] == pytest.approx(0.8)
    assert document["utterances"]["b"]["out_of_domain"] is False
    assert document["utterances"]["c"]["confidence"] is None
    back = read_confidence(path)
    assert [tuple(text)[:3] for text in back] == [tuple(text)[:3] for text in texts]
    assert back[1].confidences == pytest.approx([0.95, 0.65])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"utterances": {"a": {}}}', '{"utter'])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match=r"x\.json must be a confidence-<split>\.json"):
        read_confidence(tmp_path / "x.json")


def test_summary_by_hand() -> None:
    summary = confidence_summary(confident_texts(HYPOTHESES, detokenise), KNOWN)
    assert (summary["calibrated"], summary["num_tokens"], summary["out_of_domain"]) == (True, 3, 0)
    assert summary["mean"] == pytest.approx((0.95 + 0.65 + 0.75) / 3)
    assert summary["accuracy"] == 0.5
    assert summary["ece"] == pytest.approx((0.05 + 0.65) / 2)
    bare = confidence_summary(confident_texts(HYPOTHESES, detokenise), None)
    assert (bare["calibrated"], bare["out_of_domain"]) == (False, None)


def test_nothing_known_is_null() -> None:
    summary = confidence_summary([], KNOWN)
    assert [summary[name] for name in ("mean", "accuracy", "ece", "nce")] == [None] * 4


def test_a_search_that_tells_none_is_left_out() -> None:
    silent = HYPOTHESES[0]._replace(path=TokenPath((1, 1), (0, 2), 0.0))
    assert confident_texts([silent], detokenise) == []


def test_what_is_far_from_valid_is_one_line() -> None:
    line = far_from_valid("a.wav", [[0.3] * 30, [0.2] * 30], KNOWN)
    assert line.startswith("a.wav: ") and "confidence 0.25" in line and "\n" not in line
    assert far_from_valid("a.wav", [[0.9] * 60], KNOWN) == ""
    assert far_from_valid("a.wav", [[0.2] * 60], None) == ""
    assert far_from_valid("a.wav", [], KNOWN) == ""
