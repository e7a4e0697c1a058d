"""`confidence-<split>.json`: of each utterance its tokens with their times, posteriors, confidences
and whether they are right; and what summaries and n-best lists say of it.

    {"calibrated": true, "utterances": {ID: {"confidence": 0.98, "out_of_domain": false,
        "tokens": ["今日", "は"], "start": [0.2, 0.56], "posterior": [...], "confidences": [...],
        "correct": [true, true]}}}

`correct` is null without a reference; `posterior` is CTC's, before calibration.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dualasr_lib.core.program import what_is_wrong
from dualasr_lib.core.rates import ENCODER_MS
from dualasr_lib.decoding.hypothesis import Hypothesis, TokenPath
from dualasr_lib.decoding.offline import Detokenise, token_texts
from dualasr_lib.metrics.calibration import (
    Calibration,
    calibration_error,
    correct_tokens,
    cross_entropy_gain,
    judge,
)

__all__ = [
    "Confident",
    "calibrated",
    "confidence_summary",
    "confident_texts",
    "far_from_valid",
    "format_confidence",
    "read_confidence",
]


class Confident(NamedTuple):
    """One utterance, U tokens."""

    id: str
    tokens: Sequence[str]
    start_seconds: Sequence[float]
    posteriors: Sequence[float]
    confidences: Sequence[float]
    correct: Sequence[bool] | None
    """None without a reference."""


def calibrated(hypothesis: Hypothesis, calibration: Calibration | None) -> Hypothesis:
    """The same with confidences by `calibration`; by none they are the posteriors."""
    path = hypothesis.path
    sure = path.posteriors if calibration is None else calibration.confidences(path.posteriors)
    changed = TokenPath(path.tokens, path.frames, path.score, path.posteriors, sure)
    return hypothesis._replace(path=changed)


def confident_texts(hypotheses: Sequence[Hypothesis], detokenise: Detokenise) -> list[Confident]:
    """Those hypotheses whose search tells confidence, in the order of their ids."""
    found = []
    for item in sorted(hypotheses, key=lambda item: item.id):
        path = item.path
        if len(path.confidences) < len(path.tokens):
            continue
        texts = token_texts(detokenise, path.tokens)
        start = [round(frame * ENCODER_MS / 1000, 3) for frame in path.frames]
        correct = correct_tokens(item.ref, texts) if item.ref else None
        found.append(Confident(item.id, texts, start, path.posteriors, path.confidences, correct))
    return found


def confidence_summary(
    texts: Sequence[Confident], calibration: Calibration | None
) -> dict[str, Any]:
    """For the summary of a split. `mean` is of all tokens; `ece` and `nce` are those of
    `metrics.calibration`, of the tokens whose truth is known; `out_of_domain` counts utterances.
    """
    known = [text for text in texts if text.correct is not None]
    sure = [value for text in known for value in text.confidences]
    right = [is_right for text in known for is_right in text.correct or ()]
    verdicts = [judge(text.confidences, calibration) for text in texts]
    return {
        "calibrated": calibration is not None,
        "num_tokens": sum(len(text.tokens) for text in texts),
        "mean": judge([v for text in texts for v in text.confidences], calibration).confidence,
        "accuracy": sum(right) / len(right) if right else None,
        "ece": calibration_error(sure, right),
        "nce": cross_entropy_gain(sure, right),
        "out_of_domain": (
            None if calibration is None else sum(bool(v.out_of_domain) for v in verdicts)
        ),
    }


def far_from_valid(
    what: str, texts: Sequence[Sequence[float]], calibration: Calibration | None
) -> str:
    """A line of warning if a split or a recording, its confidences text by text, is out of domain;
    empty if it is not, or nobody can say.
    """
    verdict = judge([value for text in texts for value in text], calibration)
    if calibration is None or not verdict.out_of_domain:
        return ""
    return (
        f"{what}: this is far from the speech that the model has learnt (confidence "
        f"{verdict.confidence:.2f}, on its validation data {calibration.mean:.2f}): expect many "
        "errors"
    )


def format_confidence(texts: Sequence[Confident], calibration: Calibration | None) -> str:
    """The content of the file."""
    utterances = {}
    for text in texts:
        verdict = judge(text.confidences, calibration)
        utterances[text.id] = {
            "confidence": _short(verdict.confidence),
            "out_of_domain": verdict.out_of_domain,
            "tokens": list(text.tokens),
            "start": list(text.start_seconds),
            "posterior": [_short(value) for value in text.posteriors],
            "confidences": [_short(value) for value in text.confidences],
            "correct": None if text.correct is None else list(text.correct),
        }
    head = f'{{"calibrated": {json.dumps(calibration is not None)}, "utterances": {{\n'
    lines = [
        f"{json.dumps(id_, ensure_ascii=False)}: {json.dumps(values, ensure_ascii=False)}"
        for id_, values in utterances.items()
    ]
    return head + ",\n".join(lines) + "\n}}\n"


def read_confidence(path: Path) -> list[Confident]:
    """What `format_confidence` has written.

    Raises:
        ValueError: the file is missing or damaged.
    """
    try:
        utterances: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))["utterances"]
        return [
            Confident(id_, *(values[name] for name in _COLUMNS))
            for id_, values in utterances.items()
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} must be a confidence-<split>.json of decode.py or streaming_decode.py: "
            f"{what_is_wrong(error)}"
        ) from None


_COLUMNS = ("tokens", "start", "posterior", "confidences", "correct")


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
