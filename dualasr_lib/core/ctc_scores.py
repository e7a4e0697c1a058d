"""Texts under CTC's frames: the probability of each, summed over its alignments, and the best of
these. numpy alone.

S encoder frames, V tokens (blank 0), P texts of one utterance, U tokens of a text, A tokens of all.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dualasr_lib.core.arrays import Array, as_numpy

__all__ = ["Text", "ctc_alignment", "ctc_scores"]

Text = tuple[int, ...]
"""Vocabulary ids, no blanks."""


def ctc_scores(log_probs: Array, texts: Sequence[Text]) -> list[float]:
    """Natural log-probability of each of P texts under log_probs (S, V), S >= 1; equals
    `-torch.nn.functional.ctc_loss` (the slow reference), in less than half of its time.

    Probabilities are taken relative to the best token of each frame. The best path then has 1, and
    texts of a lattice at least exp(-its beam): nothing underflows, so no logarithms are needed. A
    text that is less likely than the best path by more than some 700 nats gets -inf.
    """
    values = as_numpy(log_probs).astype(np.float64)
    best = values.max(axis=1, keepdims=True)
    ids = sorted({0, *(token for text in texts for token in text)})
    relative = np.exp(values[:, ids] - best)  # (S, V) -> (S, A)
    trellis = _trellis(texts, {token: column for column, token in enumerate(ids)})
    alpha = np.zeros(trellis.columns.shape)  # (P, 2 U + 1) forward probabilities
    alpha[:, 0] = 1.0  # before the first frame: as if a blank had been said
    log_scale = float(best.sum())
    for frame in relative:
        arrived = alpha.copy()
        arrived[:, 1:] += alpha[:, :-1]
        arrived[:, 2:] += alpha[:, :-2] * trellis.skips
        alpha = arrived * frame[trellis.columns]
        if alpha.max() > 2.0**600:  # thousands of frames: alignments have added up
            alpha, log_scale = alpha * 2.0**-600, log_scale + 600 * math.log(2)
    rows = np.arange(len(texts))
    ends = 2 * trellis.lens
    total = alpha[rows, ends] + np.where(ends > 0, alpha[rows, ends - 1], 0.0)
    with np.errstate(divide="ignore"):
        return [float(x) for x in np.log(total) + log_scale]


class _Trellis(NamedTuple):
    """The CTC states of P texts: blank, first token, blank, second token ... blank."""

    columns: npt.NDArray[np.int64]
    """(P, 2 U + 1) column of each state's token."""
    skips: npt.NDArray[np.float64]
    """(P, 2 U - 1) 1 where a state can be reached from the last but one: other token, no blank
    between."""
    lens: npt.NDArray[np.int64]
    """(P,) tokens of each text."""


def _trellis(texts: Sequence[Text], column: Mapping[int, int]) -> _Trellis:
    lens = np.array([len(text) for text in texts])
    columns = np.full((len(texts), 2 * max(1, int(lens.max())) + 1), column[0])
    for row, text in zip(columns, texts):
        row[1 : 2 * len(text) : 2] = [column[token] for token in text]
    skips = (columns[:, 2:] != columns[:, :-2]) & (columns[:, 2:] != column[0])
    return _Trellis(columns, skips.astype(np.float64), lens)


def ctc_alignment(log_probs: Array, text: Text) -> tuple[int, ...]:
    """The frame at which each token begins in the most probable alignment to log_probs (S, V).

    Raises:
        ValueError: fewer frames than the text needs.
    """
    if not text:
        return ()
    values = as_numpy(log_probs).astype(np.float64)
    states = np.zeros(2 * len(text) + 1, np.int64)
    states[1::2] = text
    skips = np.zeros(len(states), bool)
    skips[2:] = (states[2:] != states[:-2]) & (states[2:] != 0)
    score = np.full(len(states), -np.inf)
    score[0] = 0.0  # before the first frame: as if a blank had been said
    back = np.zeros((len(values), len(states)), np.int64)
    for frame, own in enumerate(values[:, states]):
        ways = np.full((3, len(states)), -np.inf)
        ways[0], ways[1, 1:] = score, score[:-1]
        ways[2, 2:] = np.where(skips[2:], score[:-2], -np.inf)
        back[frame] = ways.argmax(axis=0)
        score = ways.max(axis=0) + own
    state = len(states) - 1 - int(score[-2] > score[-1])
    if not np.isfinite(score[state]):
        raise ValueError(
            f"a text of {len(text)} tokens has no alignment to {len(values)} frames: they are too "
            "few, or say that it cannot be"
        )
    begins = [0] * len(text)
    for frame in range(len(values) - 1, -1, -1):
        if state % 2:
            begins[state // 2] = frame
        state -= int(back[frame, state])
    return tuple(begins)
