"""The second pass that chooses: texts that CTC proposes, weighed by the attention decoder too.

S encoder frames, C channels, P texts, U tokens.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from dualasr_lib.core.ctc_scores import Text, ctc_alignment
from dualasr_lib.decoding.budget import Budget
from dualasr_lib.decoding.ctc_nbest import PrefixConfig, prefix_nbest
from dualasr_lib.decoding.hypothesis import ScoredText
from dualasr_lib.decoding.offline import Heard, OfflineSearch
from dualasr_lib.decoding.rescoring import NbestCandidates, Proposals, Scales, rescored

__all__ = ["ScoreTexts", "rescoring_search", "scorer"]

ScoreTexts = Callable[[npt.NDArray[Any], Sequence[Text]], list[float]]
"""Hidden states (S, C) of an utterance, texts -> natural log-probability of each, end included."""

_HEAD, _HIDDEN = "attention", "hidden"


def scorer(run: Callable[..., Any]) -> ScoreTexts:
    """The decoder's graph `run`, an `InferenceSession.run`, on texts of any length."""

    def score(hidden: npt.NDArray[Any], texts: Sequence[Text]) -> list[float]:
        lens = np.array([len(text) for text in texts], np.int64)
        tokens = np.zeros((len(texts), max(1, int(lens.max()))), np.int64)
        for row, text in zip(tokens, texts):
            row[: len(text)] = text
        (found,) = run(None, {"hidden": hidden[None], "tokens": tokens, "token_lens": lens})
        scores: list[float] = found.tolist()
        return scores

    return score


def rescoring_search(score: ScoreTexts, scales: Scales, config: PrefixConfig) -> OfflineSearch:
    """Of each utterance the text with the best weighted sum; where there is no time for the decoder
    the best one of CTC.
    """

    def propose(heard: Heard) -> Proposals:
        budget = heard.budget or Budget()
        utterances = zip(heard.rows("ctc"), heard.rows(_HIDDEN))
        return Proposals([_candidates(*rows, budget) for rows in utterances], 0)

    def _candidates(
        log_probs: npt.NDArray[Any], hidden: npt.NDArray[Any], budget: Budget
    ) -> NbestCandidates:
        texts = budget.must("nbest", len(log_probs), partial(prefix_nbest, log_probs, config))
        tokens = [text.tokens for text in texts]
        work = float(len(texts) * len(log_probs))
        scores = budget.run(_HEAD, work, partial(score, hidden, tokens)) if len(hidden) else None
        scored: list[ScoredText] = texts
        if scores is not None:
            scored = [text.scored(_HEAD, score) for text, score in zip(texts, scores)]
        return NbestCandidates(scored, partial(ctc_alignment, log_probs))

    return rescored(propose, scales)
