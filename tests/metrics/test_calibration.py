"""Confidence: what is right, the fit against a slow one, measures against sums by hand, and when
speech is out of domain.
"""

import math

import numpy as np
import pytest
import torch

from dualasr_lib.metrics.calibration import (
    Calibration,
    calibration_error,
    correct_tokens,
    cross_entropy_gain,
    fit_calibration,
    judge,
    reliability,
)


@pytest.mark.parametrize(
    ("ref", "tokens", "expected"),
    [
        ("今日は雨", ["今日", "は", "雨"], [True, True, True]),
        ("今日は雨", ["今日", "が", "雨"], [True, False, True]),
        ("今日は雨", ["今", "日は", "晴", "れ"], [True, True, False, False]),
        ("今日は雨", ["昨日", "は", "雨"], [False, True, True]),  # one of its characters is right
        ("今日 は", [" 今日", " は"], [True, True]),
        ("今日は雨", [], []),
        ("雨", ["", "大", "雨"], [True, False, True]),
        ("", ["雨"], [False]),
    ],
)
def test_correct_tokens(ref: str, tokens: list[str], expected: list[bool]) -> None:
    assert correct_tokens(ref, tokens) == expected


def drawn(slope: float, offset: float, size: int = 4000) -> tuple[list[float], list[bool]]:
    """Posteriors, and whether the token is right, by a calibration that is known."""
    random = np.random.default_rng(0)
    logits = random.normal(2.0, 2.0, size).clip(-9, 9)
    truth = 1 / (1 + np.exp(-(slope * logits + offset)))
    posteriors = 1 / (1 + np.exp(-logits))
    return posteriors.tolist(), (random.random(size) < truth).tolist()


def slow_fit(posteriors: list[float], correct: list[bool]) -> list[float]:
    """Slope and offset by torch's general optimiser on the same targets."""
    values, right = torch.tensor(posteriors).double(), torch.tensor(correct)
    logits = torch.logit(values, eps=1e-4)
    targets = torch.where(
        right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2)
    ).double()
    weights = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        z = weights[0] * logits + weights[1]
        nats = torch.nn.functional.binary_cross_entropy_with_logits(z, targets, reduction="sum")
        nats = nats + 5e-4 * ((weights[0] - 1) ** 2 + weights[1] ** 2)
        nats.backward()  # type: ignore[no-untyped-call]
        return nats

    optimiser.step(loss)  # type: ignore[no-untyped-call,unused-ignore]
    return weights.tolist()


@pytest.mark.parametrize(("slope", "offset"), [(0.5, -0.4), (1.0, 0.0), (2.0, 1.0)])
def test_the_fit_is_the_slow_one_and_finds_the_truth(slope: float, offset: float) -> None:
    posteriors, correct = drawn(slope, offset)
    found = fit_calibration([(posteriors, correct)])
    assert [found.slope, found.offset] == pytest.approx(slow_fit(posteriors, correct), abs=1e-4)
    assert [found.slope, found.offset] == pytest.approx([slope, offset], abs=0.15)


def test_calibrated_confidences_keep_their_word_on_other_data() -> None:
    posteriors, correct = drawn(0.5, -0.4, 8000)
    found = fit_calibration([(posteriors[:4000], correct[:4000])])
    sure = found.confidences(posteriors[4000:])
    before = calibration_error(posteriors[4000:], correct[4000:])
    after = calibration_error(sure, correct[4000:])
    assert before is not None and after is not None
    assert after < 0.03 < 0.1 < before
    gain, bare = (cross_entropy_gain(v, correct[4000:]) for v in (sure, posteriors[4000:]))
    assert gain is not None and bare is not None and gain > bare
    order = np.argsort(posteriors[4000:], kind="stable")
    assert (np.diff(np.array(sure)[order]) >= 0).all()


@pytest.mark.parametrize(
    ("posteriors", "correct"),
    [
        ([0.9, 0.99, 1.0], [True] * 3),
        ([0.1, 0.5, 0.0], [False] * 3),
        ([0.7] * 50, [True] * 40 + [False] * 10),
        ([0.99] * 40 + [0.6] * 10, [False] * 40 + [True] * 10),  # they mislead
        ([1.0], [True]),
    ],
)
def test_few_or_odd_data_give_a_confidence(posteriors: list[float], correct: list[bool]) -> None:
    found = fit_calibration([(posteriors, correct)])
    assert found.slope >= 0
    sure = found.confidences(posteriors)
    assert all(0 < value < 1 for value in sure)
    expected = (sum(correct) + 0.5) / (len(correct) + 1)
    assert found.mean == pytest.approx(expected, abs=0.25)


def test_without_a_token_there_is_nothing_to_fit() -> None:
    with pytest.raises(ValueError, match="without a token"):
        fit_calibration([((), ())])


def test_reliability_by_hand() -> None:
    sure = [0.05, 0.62, 0.68, 1.0]
    right = [False, True, False, True]
    bins = reliability(sure, right)
    assert [(b.low, b.high, b.size) for b in bins] == [(0.0, 0.1, 1), (0.6, 0.7, 2), (0.9, 1.0, 1)]
    assert bins[1].confidence == pytest.approx(0.65) and bins[1].accuracy == 0.5
    # (0.05 + 2 * 0.15 + 0) / 4
    assert calibration_error(sure, right) == pytest.approx(0.35 / 4)
    assert calibration_error([], []) is None


def test_cross_entropy_gain_by_hand() -> None:
    right = [True, True, True, False]
    prior = -(3 * math.log(0.75) + math.log(0.25))
    nats = -(3 * math.log(0.9) + math.log(0.8))
    found = cross_entropy_gain([0.9, 0.9, 0.9, 0.2], right)
    assert found == pytest.approx((prior - nats) / prior)
    assert cross_entropy_gain([0.75] * 4, right) == pytest.approx(0.0)
    assert cross_entropy_gain([0.9, 0.9], [True, True]) is None


def test_no_utterance_of_valid_is_out_of_domain_and_worse_ones_are() -> None:
    posteriors, correct = drawn(1.0, 0.0, 1000)
    utterances = [(posteriors[i : i + 20], correct[i : i + 20]) for i in range(0, 1000, 20)]
    found = fit_calibration(utterances)
    verdicts = [judge(found.confidences(values), found) for values, _ in utterances]
    assert not any(verdict.out_of_domain for verdict in verdicts)
    scores = [found.score(found.confidences(values)) for values, _ in utterances]
    low = np.quantile(scores, 0.005)
    assert found.floor == pytest.approx(found.mean - 1.5 * (found.mean - low))
    low_texts = found.confidences([0.2] * 40)
    assert judge(low_texts, found).out_of_domain
    assert judge(low_texts, found).confidence == pytest.approx(low_texts[0])


def test_a_short_text_needs_stronger_evidence_than_a_long_one() -> None:
    known = Calibration(slope=1.0, offset=0.0, mean=0.95, floor=0.9)
    assert not judge([0.8], known).out_of_domain
    assert judge([0.8] * 20, known).out_of_domain
    assert judge([], known) == (None, True, None)
    assert judge([0.1], None) == (0.1, False, None)
