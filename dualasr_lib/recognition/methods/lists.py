"""n-best lists of CTC lattices with scores of others: what several methods choose from."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dualasr_lib.lattice.options import NbestConfig

if TYPE_CHECKING:
    from torch import Tensor

    from dualasr_lib.decoding.hypothesis import ScoredText
    from dualasr_lib.decoding.offline import Detokenise, Heard
    from dualasr_lib.decoding.rescoring import Align, Propose
    from dualasr_lib.lattice.lm import LanguageModel
    from dualasr_lib.metrics.units import Unit

__all__ = ["LM_GRID", "propose_nbest", "propose_oracle"]

LM_GRID = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
"""Weights of a language model that tuning tries."""


def propose_nbest(
    config: NbestConfig, lm: "LanguageModel | None" = None, heads: Sequence[str] = ()
) -> "Propose":
    """n-best lists with CTC scores; with those of `lm` if given, and of other heads by name. Texts
    that `lm` cannot read are not listed.
    """
    from dualasr_lib.decoding.hypothesis import ScoredText
    from dualasr_lib.decoding.rescoring import NbestCandidates, Proposals
    from dualasr_lib.lattice.lm import text_score
    from dualasr_lib.lattice.nbest import nbest

    def propose(heard: "Heard") -> Proposals:
        found = nbest(heard.log_probs, heard.lens, config)
        lists = [
            [ScoredText(text.tokens, {"ctc": text.ctc}) for text in texts]
            for texts in found.results
        ]
        if lm is not None:
            rows = zip(heard.log_probs, heard.lens.tolist())
            scored = [[t.scored("lm", text_score(lm, t.tokens)) for t in texts] for texts in lists]
            lists = [_readable(texts, row[:size], lm) for texts, (row, size) in zip(scored, rows)]
        for head in heads:
            lists = _with_head(heard, lists, head)
        candidates = [
            NbestCandidates(texts, _aligner(rows[:size]))
            for texts, rows, size in zip(lists, heard.log_probs, heard.lens.tolist())
        ]
        return Proposals(candidates, found.fallbacks)

    return propose


def _readable(
    texts: "list[ScoredText]", log_probs: "Tensor", lm: "LanguageModel"
) -> "list[ScoredText]":
    """Those that the model can read (with a lexicon: that consist of its words); if it can read
    none, the likeliest text that it can.
    """
    from dualasr_lib.decoding.hypothesis import ScoredText
    from dualasr_lib.lattice.graph_search import readable_text
    from dualasr_lib.lattice.lm import text_score
    from dualasr_lib.lattice.nbest import ctc_scores

    if found := [text for text in texts if math.isfinite(text.scores["lm"])]:
        return found
    tokens = readable_text(log_probs, lm).tokens
    ctc = ctc_scores(log_probs, [tokens])[0] if len(log_probs) else 0.0
    return [ScoredText(tokens, {"ctc": ctc, "lm": text_score(lm, tokens)})]


def propose_oracle(config: NbestConfig, detokenise: "Detokenise", unit: "Unit") -> "Propose":
    """Of an n-best list the text with the fewest errors; the most probable of equals."""
    from dualasr_lib.decoding.hypothesis import ScoredText
    from dualasr_lib.decoding.rescoring import NbestCandidates, Proposals
    from dualasr_lib.lattice.nbest import nbest
    from dualasr_lib.metrics.alignment import distance

    def propose(heard: "Heard") -> Proposals:
        found = nbest(heard.log_probs, heard.lens, config)
        candidates = []
        for texts, ref, rows, size in zip(
            found.results, heard.texts, heard.log_probs, heard.lens.tolist()
        ):
            wanted = unit.split(ref)
            best = min(texts, key=lambda t: distance(wanted, unit.split(detokenise(t.tokens))))
            chosen = ScoredText(best.tokens, {"ctc": best.ctc})
            candidates.append(NbestCandidates([chosen], _aligner(rows[:size])))
        return Proposals(candidates, found.fallbacks)

    return propose


def _with_head(
    heard: "Heard", lists: "list[list[ScoredText]]", head: str
) -> "list[list[ScoredText]]":
    scores = heard.scorer(head)([[text.tokens for text in texts] for texts in lists])
    return [
        [text.scored(head, score) for text, score in zip(texts, row)]
        for texts, row in zip(lists, scores)
    ]


def _aligner(log_probs: "Tensor") -> "Align":
    from dualasr_lib.lattice.nbest import align

    def frames(tokens: tuple[int, ...]) -> tuple[int, ...]:
        return align(log_probs, tokens).frames if tokens else ()

    return frames
