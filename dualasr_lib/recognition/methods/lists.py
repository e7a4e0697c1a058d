"""n-best lists of any heads with scores of all: what several methods choose from."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from dualasr_lib.lattice.options import NbestConfig

if TYPE_CHECKING:
    from torch import Tensor

    from dualasr_lib.decoding.budget import Budget
    from dualasr_lib.decoding.hypothesis import ScoredText
    from dualasr_lib.decoding.offline import Detokenise, Heard, OfflineSearch
    from dualasr_lib.decoding.rescoring import Align, Propose
    from dualasr_lib.lattice.lm import LanguageModel
    from dualasr_lib.metrics.units import Unit

__all__ = [
    "HEAD_GRID",
    "LM_GRID",
    "Listed",
    "from_lattice",
    "from_search",
    "propose_mix",
    "propose_oracle",
    "proposed_before",
]

LM_GRID = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
"""Weights of a language model that tuning tries."""
HEAD_GRID = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
"""Weights of a head that tuning tries, beside CTC's 1."""


class Listed(NamedTuple):
    """Texts of each utterance of a batch, with the scores that come with them."""

    texts: "list[list[ScoredText]]"
    fallbacks: int = 0
    """Times that memory ran out and less was searched, or that a beam was empty and was widened."""


def from_lattice(config: NbestConfig) -> "Callable[[Heard], Listed]":
    """Texts drawn from the CTC lattice, with CTC's scores. k2 must be there when it is called."""
    from dualasr_lib.decoding.hypothesis import ScoredText

    def listed(heard: "Heard") -> Listed:
        from dualasr_lib.lattice.nbest import nbest

        found = nbest(heard.log_probs, heard.lens, config)
        lists = [[ScoredText(text.tokens, {"ctc": text.ctc}) for text in t] for t in found.results]
        return Listed(lists, found.fallbacks)

    return listed


def from_search(search: "OfflineSearch") -> "Callable[[Heard], Listed]":
    """What a search lists, with the times that it knows. Its scores are those of its own beam, not
    of whole texts, and are left out.
    """
    from dualasr_lib.decoding.hypothesis import ScoredText

    def listed(heard: "Heard") -> Listed:
        found = search(heard)
        lists = [[ScoredText(text.tokens, {}, text.frames) for text in t] for t in found.nbest]
        return Listed(lists, found.fallbacks)

    return listed


def proposed_before(heard: "Heard") -> Listed:
    """What the first pass of a stream has proposed, without its scores; else nothing."""
    proposed = heard.proposed or [()] * len(heard.lens)
    return Listed([[text._replace(scores={}) for text in texts] for texts in proposed])


def propose_mix(
    sources: "Mapping[str, Callable[[Heard], Listed]]",
    scores: Sequence[str],
    lm: "LanguageModel | None" = None,
) -> "Propose":
    """All texts of all lists, each once, with the scores of heads by name and of `lm` if given.
    Texts that `lm` cannot read are left out.

    Args:
        sources: by name.
        scores: the first one is what texts without other weights are ranked by.
    """
    from dualasr_lib.decoding.budget import Budget
    from dualasr_lib.decoding.rescoring import NbestCandidates, Proposals

    def propose(heard: "Heard") -> Proposals:
        budget = heard.budget or Budget()
        found = _lists(heard, sources, budget)
        lists = [_united(lists) for lists in zip(*(listed.texts for listed in found))]
        if lm is not None:
            lists = _read_by(lm, heard, lists)
        lists = _with_head(heard, lists, scores[0])
        judging = [scores[0]]
        work = float(sum(map(len, lists)) * int(heard.lens.sum()))
        for head in scores[1:]:
            scored = budget.run(head, work, partial(_with_head, heard, lists, head))
            if scored is not None:
                lists, judging = scored, [*judging, head]
        lists = [
            sorted((_only(text, judging) for text in texts), key=lambda t: -t.scores[scores[0]])
            for texts in lists
        ]
        candidates = [
            NbestCandidates(texts, _align(heard, index, texts)) for index, texts in enumerate(lists)
        ]
        return Proposals(candidates, sum(listed.fallbacks for listed in found))

    return propose


def _lists(
    heard: "Heard", sources: "Mapping[str, Callable[[Heard], Listed]]", budget: "Budget"
) -> list[Listed]:
    """Of each source; if time is short, of the first one and no others."""
    work, found = float(heard.lens.sum()), list[Listed]()
    for name, source in sources.items():
        do = partial(source, heard)
        listed = budget.run(name, work, do) if found else budget.must(name, work, do)
        found += [] if listed is None else [listed]
    return found


def _united(lists: "Sequence[list[ScoredText]]") -> "list[ScoredText]":
    """Each text once, with the scores of all lists that have it; with times if all of them know
    some, so that a text of the lattice keeps those of CTC.
    """
    found: dict[tuple[int, ...], ScoredText] = {}
    for text in chain.from_iterable(lists):
        known = found.get(text.tokens, text)
        frames = known.frames if text.frames else ()
        found[text.tokens] = text._replace(scores={**known.scores, **text.scores}, frames=frames)
    return list(found.values())


def _only(text: "ScoredText", heads: Sequence[str]) -> "ScoredText":
    """The text with the scores of these heads, in their order, and of the language model."""
    names = (*heads, *(["lm"] if "lm" in text.scores else []))
    return text._replace(scores={name: text.scores[name] for name in names})


def _read_by(
    lm: "LanguageModel", heard: "Heard", lists: "list[list[ScoredText]]"
) -> "list[list[ScoredText]]":
    """Texts with the scores of `lm`, without those that it cannot read."""
    from dualasr_lib.lattice.lm import text_score

    scored = [[t.scored("lm", text_score(lm, t.tokens)) for t in texts] for texts in lists]
    if "ctc" not in heard.frames:
        return scored
    return [_readable(texts, rows, lm) for texts, rows in zip(scored, heard.rows("ctc"))]


def _readable(
    texts: "list[ScoredText]", log_probs: "Tensor", lm: "LanguageModel"
) -> "list[ScoredText]":
    """Those that the model can read (with a lexicon: that consist of its words); if it can read
    none, the likeliest text that it can.
    """
    from dualasr_lib.core.ctc_scores import ctc_scores
    from dualasr_lib.decoding.hypothesis import ScoredText
    from dualasr_lib.lattice.graph_search import readable_text
    from dualasr_lib.lattice.lm import text_score

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
    """The texts with the scores of one head; those that have it already are not asked about."""
    if all(head in text.scores for texts in lists for text in texts):
        return lists
    scores = heard.scorer(head)([[text.tokens for text in texts] for texts in lists])
    return [
        [text if head in text.scores else text.scored(head, score) for text, score in zip(*both)]
        for both in zip(lists, scores)
    ]


def _align(heard: "Heard", index: int, texts: "Sequence[ScoredText]") -> "Align":
    """When the tokens of a text were said: as its list knows it, or else by CTC."""
    known = {text.tokens: text.frames for text in texts if text.frames}

    def frames(tokens: tuple[int, ...]) -> tuple[int, ...]:
        if tokens in known or not tokens:
            return known.get(tokens, ())
        return _aligner(heard.rows("ctc")[index])(tokens)

    return frames


def _aligner(log_probs: "Tensor") -> "Align":
    from dualasr_lib.lattice.nbest import align

    def frames(tokens: tuple[int, ...]) -> tuple[int, ...]:
        return align(log_probs, tokens).frames if tokens else ()

    return frames
