"""One frame of the transducer's beam search, for all streams at once: tensors in, tensors out.

Every hypothesis of a frame moves on with a blank, or says one of its best tokens and stays for the
next; the last token that a frame may have moves on by itself. With one token per frame that is the
topology of a modified transducer, with many the regular one's. Alignments of one text are added up.
A hypothesis knows its text by a rolling hash.

N streams, H hypotheses, C candidates of a stream, M rows of the joiner, K tokens of context,
P tokens tried after a hypothesis, Y tokens of a frame at most, D channels of the joiner.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dualasr_lib.decoding.transducer.joiner import BLANK, Joiner
from dualasr_lib.decoding.transducer.options import BeamConfig

__all__ = ["Beams", "Language", "Moves", "move_on", "open_beams"]

_BASE = 6364136223846793005
"""Of the rolling hash, whose numbers wrap around."""


class Language(NamedTuple):
    """A language model of tokens, as searches here want it."""

    start: int
    """The state in which a text begins."""
    advance: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    """States (M,), tokens (M,) -> states after them and natural log-probabilities, float64."""
    final: Callable[[Tensor], Tensor]
    """States (M,) -> natural log-probabilities that a text ends there, float64."""
    scale: float
    """Weight of its log-probabilities, >= 0."""


class Beams(NamedTuple):
    """The hypotheses of N streams, the best first; a score of minus infinity is none."""

    score: Tensor
    """(N, H) float64, the language model's share included."""
    lm_score: Tensor
    """(N, H) float64, before its weight."""
    lm: Tensor
    """(N, H) its states."""
    context: Tensor
    """(N, H, K) last tokens."""
    text: Tensor
    """(N, H) hash."""

    def at(self, place: Tensor) -> "Beams":
        """The hypotheses at place (N, C)."""
        wide = place[:, :, None].expand(-1, -1, self.context.shape[2])
        return Beams(
            score=self.score.gather(1, place),
            lm_score=self.lm_score.gather(1, place),
            lm=self.lm.gather(1, place),
            context=self.context.gather(1, wide),
            text=self.text.gather(1, place),
        )


class Moves(NamedTuple):
    """How hypotheses came out of those of the frame before."""

    beams: Beams
    parent: Tensor
    """(N, H) which one it was."""
    said: Tensor
    """(N, H, Y) what it said on the frame, in order; blanks behind."""

    def at(self, place: Tensor) -> "Moves":
        """Those at place (N, C)."""
        wide = place[:, :, None].expand(-1, -1, self.said.shape[2])
        return Moves(self.beams.at(place), self.parent.gather(1, place), self.said.gather(1, wide))

    def scored(self, score: Tensor) -> "Moves":
        """With other scores (N, H)."""
        return self._replace(beams=self.beams._replace(score=score))


def open_beams(streams: int, joiner: Joiner, config: BeamConfig, lm: Language | None) -> Beams:
    """Streams that have heard nothing: one hypothesis, the empty text."""
    shape = streams, config.beam
    score = torch.full(shape, -torch.inf, dtype=torch.float64)
    score[:, 0] = 0.0
    return Beams(
        score,
        torch.zeros(shape, dtype=torch.float64),
        torch.full(shape, 0 if lm is None else lm.start),
        torch.full((*shape, joiner.context), BLANK),
        torch.zeros(shape, dtype=torch.int64),
    )


def move_on(
    frames: Tensor, beams: Beams, joiner: Joiner, config: BeamConfig, lm: Language | None
) -> Moves:
    """One frame (N, D) of each stream."""
    streams, width = beams.score.shape
    said = torch.zeros(streams, width, config.max_symbols, dtype=torch.int64)
    here = Moves(beams, torch.arange(width).expand(streams, width), said)
    done: list[Moves] = []
    for count in range(config.max_symbols):
        blank, talking = _spoken(frames, here, joiner, config, lm, count)
        last = count + 1 == config.max_symbols
        done += [blank, talking] if last else [blank]
        if last:
            break
        floor = torch.cat([m.beams.score for m in done], dim=1).amax(dim=1) - config.score_beam
        here = _kept(talking, config)
        score = here.beams.score
        here = here.scored(score.masked_fill(score < floor[:, None], -torch.inf))
        if not bool(here.beams.score.isfinite().any()):
            break
    moves = Moves(
        Beams(*(torch.cat(x, dim=1) for x in zip(*(m.beams for m in done)))),
        torch.cat([m.parent for m in done], dim=1),
        torch.cat([m.said for m in done], dim=1),
    )
    return _kept(_recombined(moves, config.recombine == "context"), config)


def _spoken(
    frames: Tensor,
    here: Moves,
    joiner: Joiner,
    config: BeamConfig,
    lm: Language | None,
    count: int,
) -> tuple[Moves, Moves]:
    """All hypotheses after a blank (N, H), and the best 2 H after a token more."""
    score = here.beams.score
    stream, which = score.isfinite().nonzero(as_tuple=True)
    contexts = here.beams.context[stream, which]
    logits, norm = joiner.outcomes(frames[stream], joiner.texts(contexts))
    own = score[stream, which]
    blank = torch.full_like(score, -torch.inf)
    blank[stream, which] = own + (logits[:, BLANK] - norm).double()
    logits[:, BLANK] = -torch.inf
    tried = min(2 * config.beam, joiner.vocab_size - 1)
    best, token = logits.topk(tried, dim=1)
    scores = own[:, None] + (best - norm[:, None]).double()  # (M, P)
    lm_score = here.beams.lm_score[stream, which, None].expand_as(scores)
    state = here.beams.lm[stream, which, None].expand_as(token)
    if lm is not None:
        state, more = (x.view(scores.shape) for x in lm.advance(state.flatten(), token.flatten()))
        scores, lm_score = scores + lm.scale * more, lm_score + more
    # (M, P) -> (N, H P) -> the best
    wide = score.new_full((*score.shape, tried), -torch.inf)
    wide[stream, which] = scores
    row = torch.zeros(score.shape, dtype=torch.int64)
    row[stream, which] = torch.arange(len(own))
    found, place = wide.flatten(1).topk(min(2 * config.beam, wide[0].numel()), dim=1)
    parent, choice = place // tried, place % tried
    row = row.gather(1, parent)
    new = token[row, choice]
    old = here.at(parent)
    said = old.said.clone()
    said[:, :, count] = new
    beams = Beams(
        score=found,
        lm_score=lm_score[row, choice],
        lm=state[row, choice],
        context=torch.cat([old.beams.context[:, :, 1:], new[:, :, None]], dim=2),
        text=old.beams.text * _BASE + new + 1,
    )
    return here.scored(blank), Moves(beams, old.parent, said)


def _recombined(moves: Moves, by_context: bool) -> Moves:
    """Equal texts added up into the likeliest of them; of texts that go on alike the best one."""
    order = moves.beams.score.sort(dim=1, descending=True, stable=True).indices
    moves = moves.at(order)
    beams = moves.beams
    earlier = torch.ones(order.shape[1], order.shape[1], dtype=torch.bool).tril(-1)
    same = beams.text[:, :, None] == beams.text[:, None, :]
    total = beams.score[:, None, :].masked_fill(~same, -torch.inf).logsumexp(dim=2)
    total = total.masked_fill((same & earlier).any(dim=2), -torch.inf)
    if by_context:
        alike = (beams.context[:, :, None] == beams.context[:, None]).all(dim=3)
        alike &= beams.lm[:, :, None] == beams.lm[:, None, :]
        mine, other = total[:, :, None], total[:, None, :]
        better = (other > mine) | ((other == mine) & earlier)
        total = total.masked_fill((alike & better).any(dim=2), -torch.inf)
    return moves.scored(total)


def _kept(moves: Moves, config: BeamConfig) -> Moves:
    """The best H, within the beam; places that are left over have no score."""
    score = moves.beams.score
    missing = config.beam - score.shape[1]
    if missing > 0:
        first = torch.zeros(len(score), missing, dtype=torch.int64)
        own = torch.arange(score.shape[1]).expand_as(score)
        moves = moves.at(torch.cat([own, first], dim=1))
        score = torch.nn.functional.pad(score, (0, missing), value=-torch.inf)
    best, place = score.topk(config.beam, dim=1)
    best = best.masked_fill(best < best[:, :1] - config.score_beam, -torch.inf)
    return moves.at(place).scored(best)
