"""n-best lists of CTC by prefix beam search, where there are no lattices. numpy alone.

Texts are searched with a beam, then each gets its exact score (`core.ctc_scores`), as the lists of
lattices do; tests/lattice/test_nbest.py compares both.

S encoder frames, V tokens (blank 0), P texts.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from dualasr_lib.core.arrays import Array, as_numpy
from dualasr_lib.core.ctc_scores import Text, ctc_scores
from dualasr_lib.decoding.hypothesis import ScoredText

__all__ = ["PrefixConfig", "prefix_nbest"]


@dataclass(frozen=True, kw_only=True)
class PrefixConfig:
    """How much is searched."""

    beam: int = 24
    """Prefixes that are kept at each frame."""
    token_beam: float = 8.0
    """Tokens of a frame that are further below its best one are not tried (natural log)."""
    text_beam: float = 3.0
    """Texts that are further below the best one are left out (natural log)."""


def prefix_nbest(log_probs: Array, config: PrefixConfig) -> list[ScoredText]:
    """Texts under log_probs (S, V), the most probable first, each with its `ctc` score; at least
    one.
    """
    texts = list(_prefixes(as_numpy(log_probs), config))
    if not len(log_probs):
        return [ScoredText((), {"ctc": 0.0})]
    scored = sorted(zip(ctc_scores(log_probs, texts), texts), reverse=True)
    floor = scored[0][0] - config.text_beam
    return [ScoredText(text, {"ctc": score}) for score, text in scored if score >= floor]


def _prefixes(log_probs: Array, config: PrefixConfig) -> list[Text]:
    """The prefixes that the last frame leaves. Of each the probability to end in a blank, and in
    its last token, relative to the best token of each frame.
    """
    relative = np.exp(log_probs - log_probs.max(axis=1, keepdims=True))
    tried = log_probs >= log_probs.max(axis=1, keepdims=True) - config.token_beam
    kept: dict[Text, list[float]] = {(): [1.0, 0.0]}
    for frame, row in enumerate(relative):
        likely = [int(token) for token in np.flatnonzero(tried[frame]) if token]
        values = [float(row[token]) for token in likely]
        after: dict[Text, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for text, (blank, token) in kept.items():
            last, total, own = (text[-1] if text else 0), blank + token, after[text]
            own[0] += total * float(row[0])
            if text:
                own[1] += token * float(row[last])
            for new, value in zip(likely, values):
                before = blank if new == last else total
                if before:
                    after[(*text, new)][1] += before * value
        best = sorted(after, key=lambda text: -sum(after[text]))[: config.beam]
        scale = sum(after[best[0]]) or 1.0
        kept = {text: [share / scale for share in after[text]] for text in best}
    return list(kept)
