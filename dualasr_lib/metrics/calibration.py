"""Confidence: the probability that a recognised token is right, and how well it keeps its word.

    confidence = sigmoid(slope * logit(posterior) + offset)          (Platt scaling, monotone)

Posteriors of neural models are too sure of themselves; slope and offset are fitted where the truth
is known. A confidence is calibrated if of the tokens that have 0.8, eight in ten are right. The
fit holds for speech of its own kind: elsewhere confidences are too high, but still lower than
there, which is how such speech is noticed.

U tokens. Sources: Platt 1999 (scaling), Lin et al. 2007 (its targets), Guo et al. 2017 (ECE), NIST
(normalised cross entropy, NCE).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dualasr_lib.metrics.alignment import align
from dualasr_lib.metrics.units import characters

__all__ = [
    "Bin",
    "Calibration",
    "Judged",
    "calibration_error",
    "correct_tokens",
    "cross_entropy_gain",
    "fit_calibration",
    "judge",
    "reliability",
]

_Floats = npt.NDArray[np.float64]

_SURE = 1e-4  # posteriors nearer to 0 or 1 count as this far from them
_RIDGE = 1e-3  # pulls towards slope 1 and offset 0 where nothing else speaks
_EXPECTED_TOKENS = 10
"""A short text may have a low mean by chance: so many tokens of valid's mean are added to it."""
_LOW, _MARGIN = 0.005, 1.5
"""Out of domain is what lies half as far again from valid's mean as all but 0.5 % of valid: chosen
where false warnings on evaluation data become rare and foreign speech is still far (RESULTS.md).
"""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What valid has taught about confidence; plain numbers."""

    slope: float
    """Not negative: what is more probable is never less confident."""
    offset: float
    mean: float
    """Mean confidence of the tokens of valid."""
    floor: float
    """Texts whose score is lower are out of domain."""

    def confidences(self, posteriors: Sequence[float]) -> tuple[float, ...]:
        """(U,) of posteriors (U,)."""
        return tuple(_sigmoid(self.slope * _logit(posteriors) + self.offset).tolist())

    def score(self, confidences: Sequence[float]) -> float:
        """Mean confidence of a text or of a whole recording (U,), U >= 0, drawn towards that of
        valid by a few tokens, so that a short text needs stronger evidence than a long one.
        """
        total = sum(confidences) + _EXPECTED_TOKENS * self.mean
        return total / (len(confidences) + _EXPECTED_TOKENS)


class Judged(NamedTuple):
    """What confidences (U,) say of a text or of a whole recording."""

    confidence: float | None
    """Mean: the expected share of its tokens that are right; None without tokens."""
    is_calibrated: bool
    out_of_domain: bool | None
    """Whether it is further from valid than speech of its kind is; None if nobody can say."""


def judge(confidences: Sequence[float], calibration: Calibration | None) -> Judged:
    """The verdict on a text; without calibration, or without tokens, none."""
    mean = sum(confidences) / len(confidences) if confidences else None
    if calibration is None or mean is None:
        return Judged(mean, calibration is not None, None)
    return Judged(mean, True, calibration.score(confidences) < calibration.floor)


def correct_tokens(ref: str, tokens: Sequence[str]) -> list[bool]:
    """Of each token of a text (U,) whether all its characters stand in the reference, by a cheapest
    alignment of their characters. White space does not count.
    """
    pieces = [characters(token) for token in tokens]
    pairs = align(characters(ref), [char for piece in pieces for char in piece])
    matches = [pair.ref == pair.hyp for pair in pairs if pair.hyp is not None]
    ends = [0, *accumulate(map(len, pieces))]
    return [all(matches[begin:end]) for begin, end in pairwise(ends)]


def fit_calibration(utterances: Sequence[tuple[Sequence[float], Sequence[bool]]]) -> Calibration:
    """The calibration for texts whose truth is known.

    Args:
        utterances: of each the posteriors of its tokens (U,), and whether they are right (U,).

    Raises:
        ValueError: no token.
    """
    posteriors = [value for values, _ in utterances for value in values]
    correct = [is_right for _, rights in utterances for is_right in rights]
    if not posteriors:
        raise ValueError("confidence cannot be calibrated on texts without a token")
    slope, offset = _platt(_logit(posteriors), np.array(correct, dtype=np.float64))
    free = Calibration(slope=slope, offset=offset, mean=0.0, floor=0.0)
    texts = [free.confidences(values) for values, _ in utterances]
    mean = float(np.mean([value for values in texts for value in values]))
    known = Calibration(slope=slope, offset=offset, mean=mean, floor=0.0)
    low = float(np.quantile([known.score(values) for values in texts], _LOW))
    return Calibration(slope=slope, offset=offset, mean=mean, floor=mean - _MARGIN * (mean - low))


def _platt(logits: _Floats, correct: _Floats) -> tuple[float, float]:
    """Slope and offset of the highest likelihood, by Newton's method with step halving.

    Platt's targets leave room for errors that were not seen: (n + 1) / (n + 2) and 1 / (n + 2).
    """
    right, wrong = correct.sum(), len(correct) - correct.sum()
    targets = np.where(correct > 0, (right + 1) / (right + 2), 1 / (wrong + 2))
    rows = np.stack([logits, np.ones_like(logits)])  # (2, U)
    identity = np.array([1.0, 0.0])

    def loss(weights: _Floats) -> float:
        z = weights @ rows
        nats = np.logaddexp(0.0, z) - targets * z
        return float(nats.sum() + 0.5 * _RIDGE * ((weights - identity) ** 2).sum())

    weights = identity
    for _ in range(100):
        values = _sigmoid(weights @ rows)
        gradient = rows @ (values - targets) + _RIDGE * (weights - identity)
        curvature = (rows * values * (1 - values)) @ rows.T + _RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        while loss(weights - step) > loss(weights) and np.abs(step).max() > 1e-9:
            step = step / 2
        weights = weights - step
        if np.abs(step).max() < 1e-9:
            break
    if weights[0] < 0:  # posteriors that mislead: one confidence for all
        return 0.0, float(_logit([float(targets.mean())])[0])
    return float(weights[0]), float(weights[1])


class Bin(NamedTuple):
    """Tokens of about the same confidence."""

    low: float
    high: float
    size: int
    confidence: float
    """Their mean."""
    accuracy: float
    """Share of them that are right."""


def reliability(
    confidences: Sequence[float], correct: Sequence[bool], num_bins: int = 10
) -> list[Bin]:
    """Tokens (U,) in bins of equal width, those without tokens left out."""
    values, right = np.asarray(confidences, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    index = np.minimum((values * num_bins).astype(np.int64), num_bins - 1)
    bins = []
    for number in np.unique(index).tolist():
        inside = index == number
        mean, share = float(values[inside].mean()), float(right[inside].mean())
        low, high = number / num_bins, (number + 1) / num_bins
        bins.append(Bin(low, high, int(inside.sum()), mean, share))
    return bins


def calibration_error(confidences: Sequence[float], correct: Sequence[bool]) -> float | None:
    """Expected calibration error (ECE): mean over tokens (U,) of |accuracy - confidence| of their
    bins; 0 is perfect. None without tokens.
    """
    bins = reliability(confidences, correct)
    total = sum(each.size for each in bins)
    if not total:
        return None
    return sum(each.size * abs(each.accuracy - each.confidence) for each in bins) / total


def cross_entropy_gain(confidences: Sequence[float], correct: Sequence[bool]) -> float | None:
    """NCE of tokens (U,): the share of the uncertainty about right and wrong that confidences take
    away; 1 is perfect, 0 is no better than the mean of all. None where all are right, or wrong.
    """
    values = np.clip(np.asarray(confidences, dtype=np.float64), _SURE, 1 - _SURE)
    right = np.asarray(correct, dtype=bool)
    if not right.any() or right.all():
        return None
    share = right.mean()
    prior = -len(right) * (share * np.log(share) + (1 - share) * np.log(1 - share))
    nats = -(np.log(values[right]).sum() + np.log(1 - values[~right]).sum())
    return float((prior - nats) / prior)


def _logit(posteriors: Sequence[float]) -> _Floats:
    values = np.clip(np.asarray(posteriors, dtype=np.float64), _SURE, 1 - _SURE)
    return np.asarray(np.log(values) - np.log1p(-values))


def _sigmoid(values: _Floats) -> _Floats:
    return np.asarray(1 / (1 + np.exp(-values)))
