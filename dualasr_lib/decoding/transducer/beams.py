"""One frame of the transducer's beam search: hypotheses in, hypotheses out, of all streams at once.

Every hypothesis of a frame moves on with a blank, or says one of its best tokens and stays for the
next; the last token that a frame may have moves on by itself. With one token per frame that is the
topology of a modified transducer, with many the regular one's. Alignments of one text are added up.
A hypothesis knows its text by a rolling hash.

Streams share what is worth sharing, products of the joiner and questions to the language model; a
stream's few hypotheses are plain numbers, which cost less than tensors of their size.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from heapq import nlargest
from typing import NamedTuple

from dualasr_lib.core.trace import Trace, extended
from dualasr_lib.decoding.transducer.cells import BestTokens, Cells, Context, Place
from dualasr_lib.decoding.transducer.options import BeamConfig

__all__ = ["Beam", "Hypothesis", "Language", "Now", "move_on"]

_BASE, _WORD = 6364136223846793005, 2**64 - 1
"""Of the rolling hash, whose numbers wrap around."""


class Language(NamedTuple):
    """A language model of tokens, as searches here want it."""

    start: int
    """The state in which a text begins."""
    advance: Callable[[list[int], list[int]], tuple[list[int], list[float]]]
    """States, as many tokens -> states after them and natural log-probabilities."""
    final: Callable[[list[int]], list[float]]
    """States -> natural log-probabilities that a text ends there."""
    scale: float
    """Weight of its log-probabilities, >= 0."""


class Hypothesis(NamedTuple):
    """A text."""

    score: float
    """Natural log-probability, the language model's share included."""
    lm_score: float
    """The language model's, before its weight."""
    lm: int
    """Its state."""
    context: Context
    text: int
    """Hash."""
    trace: Trace | None
    """What it has emitted, and when."""


Beam = Sequence[Hypothesis]
"""The hypotheses of a stream, the best first, never none."""


class Now(NamedTuple):
    """The frame that a stream hears."""

    stream: int
    frame: int
    """Of those that it is fed."""
    time: int
    """Its number in the stream."""


def move_on(
    beams: Sequence[Beam],
    nows: Sequence[Now],
    cells: Cells[BestTokens],
    config: BeamConfig,
    lm: Language | None,
) -> list[Beam]:
    """One frame of each stream."""
    done: list[list[Hypothesis]] = [[] for _ in beams]
    here = list(beams)
    for count in range(config.max_symbols):
        found = iter(
            cells.at([Place(*now[:2], h.context) for now, b in zip(nows, here) for h in b])
        )
        heard = [[next(found) for _ in beam] for beam in here]
        for own, beam, outcomes in zip(done, here, heard):
            own += [h._replace(score=h.score + cell.blank) for h, cell in zip(beam, outcomes)]
        spoken = _spoken(here, heard, nows, config, lm)
        if count + 1 == config.max_symbols:
            done = [own + more for own, more in zip(done, spoken)]
            break
        here = [
            _within(_near(more, config), max(map(_score, own)) - config.score_beam)
            for own, more in zip(done, spoken)
        ]
        if not any(here):
            break
    by_context = config.recombine == "context"
    return [_near(_recombined(own, by_context), config) for own in done]


class _Spoken(NamedTuple):
    """A hypothesis with a token more, not made yet."""

    score: float
    lm_score: float
    lm: int
    parent: Hypothesis
    token: int


def _spoken(
    beams: Sequence[Beam],
    heard: Sequence[Sequence[BestTokens]],
    nows: Sequence[Now],
    config: BeamConfig,
    lm: Language | None,
) -> list[list[Hypothesis]]:
    """Of each stream the best of its hypotheses with a token more, twice as many as the beam's."""
    found: list[list[Hypothesis]] = []
    said = _with_language(beams, heard, lm)
    for now, more in zip(nows, said):
        best = nlargest(2 * config.beam, more, key=_score)
        found.append([_said(each, now.time) for each in best if each.score > -math.inf])
    return found


def _with_language(
    beams: Sequence[Beam], heard: Sequence[Sequence[BestTokens]], lm: Language | None
) -> list[list[_Spoken]]:
    """Of each stream its hypotheses with each of their best tokens."""
    said = [
        [
            _Spoken(h.score + gain, h.lm_score, h.lm, h, token)
            for h, cell in zip(beam, outcomes)
            for token, gain in zip(cell.tokens, cell.scores)
        ]
        for beam, outcomes in zip(beams, heard)
    ]
    if lm is None:
        return said
    asked = [each for more in said for each in more]
    if not asked:
        return said
    answers = iter(zip(*lm.advance([each.lm for each in asked], [each.token for each in asked])))
    return [[_weighed(each, *next(answers), lm.scale) for each in more] for more in said]


def _weighed(said: _Spoken, state: int, score: float, scale: float) -> _Spoken:
    return _Spoken(
        said.score + scale * score, said.lm_score + score, state, said.parent, said.token
    )


def _said(said: _Spoken, time: int) -> Hypothesis:
    score, lm_score, lm, parent, token = said
    return Hypothesis(
        score,
        lm_score,
        lm,
        (*parent.context[1:], token),
        (parent.text * _BASE + token + 1) & _WORD,
        extended(parent.trace, token, time),
    )


def _recombined(moves: Iterable[Hypothesis], by_context: bool) -> list[Hypothesis]:
    """Equal texts added up into the likeliest of them; of texts that go on alike the best one."""
    texts: dict[int, list[Hypothesis]] = {}
    for move in moves:
        texts.setdefault(move.text, []).append(move)
    added = [_added(same) for same in texts.values()]
    if not by_context:
        return added
    futures: dict[tuple[Context, int], Hypothesis] = {}
    for move in added:
        key = move.context, move.lm
        if key not in futures or move.score > futures[key].score:
            futures[key] = move
    return list(futures.values())


def _added(same: Sequence[Hypothesis]) -> Hypothesis:
    if len(same) == 1:
        return same[0]
    best = max(same, key=_score)
    total = sum(math.exp(each.score - best.score) for each in same)
    return best._replace(score=best.score + math.log(total))


def _near(moves: Iterable[Hypothesis], config: BeamConfig) -> list[Hypothesis]:
    """The best ones, within the beam."""
    best = nlargest(config.beam, moves, key=_score)
    return _within(best, best[0].score - config.score_beam) if best else best


def _within(moves: Iterable[Hypothesis], floor: float) -> list[Hypothesis]:
    return [move for move in moves if move.score >= floor]


def _score(move: Hypothesis | _Spoken) -> float:
    return move.score
