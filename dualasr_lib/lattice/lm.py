"""What lattice search asks of a language model over tokens; and the score of one whole text.

Implemented by `ngram.NgramLm` (token n-grams) and `lexicon.LexiconLm` (a lexicon and word n-grams).
States are plain int64 numbers, so that thousands of hypotheses are advanced by one call; nothing
needs k2.

M questions (a state and the token to read next), R answers.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Floats", "Integers", "LanguageModel", "LmArcs", "text_score"]

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class LmArcs(NamedTuple):
    """Ways to read the tokens that were asked for, none or several for a question."""

    source: Integers
    """(R,) which of the M questions, rising."""
    target: Integers
    """(R,) the state after it."""
    score: Floats
    """(R,) natural log."""


class LanguageModel(Protocol):
    """Probabilities of token sequences, as an automaton without epsilon arcs."""

    @property
    def start(self) -> int:
        """The state in which a text begins."""

    def advance(self, states: Integers, tokens: Integers) -> LmArcs:
        """Reads tokens (M,) in states (M,)."""

    def final(self, states: Integers) -> Floats:
        """(M,) natural log-probability that the text ends here; -inf where it cannot."""


def text_score(lm: LanguageModel, tokens: Sequence[int]) -> float:
    """Natural log-probability of a text, its end included: the best of the ways to read it."""
    states, scores = np.array([lm.start], dtype=np.int64), np.zeros(1)
    for token in tokens:
        arcs = lm.advance(states, np.full_like(states, token))
        states, scores = arcs.target, scores[arcs.source] + arcs.score
    return float((scores + lm.final(states)).max()) if len(states) else -math.inf
