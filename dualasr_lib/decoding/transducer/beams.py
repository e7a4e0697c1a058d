"""One frame of the transducer's beam search, for all streams at once: tensors in, tensors out.

Every hypothesis of a frame moves on with a blank, or says one of its best tokens and stays for the
next; the last token that a frame may have moves on by itself. With one token per frame that is the
topology of a modified transducer, with many the regular one's. Alignments of one text are added up.
A hypothesis knows its text by a rolling hash.

N streams, H hypotheses, C candidates of a stream, M rows of the joiner, K tokens of context,
P tokens tried after a hypothesis, Y tokens of a frame at most, D channels of the joiner.
"""

from collections.abc import Callable
from functools import cache
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
        wide = place.unsqueeze(2).expand(-1, -1, self.context.shape[2])
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
        wide = place.unsqueeze(2).expand(-1, -1, self.said.shape[2])
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
    old = here.beams
    streams, width = old.score.shape
    live = old.score.flatten().isfinite().nonzero().squeeze(1)
    logits, norm = joiner.outcomes(
        frames[live // width], joiner.texts(old.context.flatten(0, 1)[live])
    )
    blank = _everywhere(logits[:, BLANK] - norm, live, streams * width, -torch.inf)
    logits[:, BLANK] = -torch.inf
    tried = min(2 * config.beam, joiner.vocab_size - 1)
    best, token = logits.topk(tried, dim=1)
    gain = _everywhere(best - norm.unsqueeze(1), live, streams * width, -torch.inf)
    token = _everywhere(token, live, streams * width, BLANK)
    # (N H, P) -> (N, H P) -> the best
    score = old.score.view(-1, 1) + gain.double()
    state = old.lm.view(-1, 1).expand_as(token)
    lm_score = old.lm_score.view(-1, 1).expand_as(score)
    if lm is not None:
        state, more = (x.view_as(token) for x in lm.advance(state.flatten(), token.flatten()))
        score, lm_score = score + lm.scale * more, lm_score + more
    score = score.view(streams, -1)
    found, place = score.topk(min(2 * config.beam, score.shape[1]), dim=1)
    new = token.view(streams, -1).gather(1, place)
    moved = here.at(torch.div(place, tried, rounding_mode="floor"))
    said = moved.said.clone()
    said.select(2, count).copy_(new)
    beams = Beams(
        score=found,
        lm_score=lm_score.reshape(streams, -1).gather(1, place),
        lm=state.reshape(streams, -1).gather(1, place),
        context=torch.cat([moved.beams.context[:, :, 1:], new.unsqueeze(2)], dim=2),
        text=moved.beams.text * _BASE + new + 1,
    )
    stays = here.scored(old.score + blank.double().view_as(old.score))
    return stays, Moves(beams, moved.parent, said)


def _everywhere(x: Tensor, live: Tensor, size: int, fill: float) -> Tensor:
    """Values (M, ...) of the live ones of `size` places, with `fill` at the others."""
    if len(live) == size:
        return x
    return x.new_full((size, *x.shape[1:]), fill).index_copy_(0, live, x)


def _recombined(moves: Moves, by_context: bool) -> Moves:
    """Equal texts added up into the likeliest of them; of texts that go on alike the best one."""
    beams = moves.beams
    earlier = _earlier(beams.score.shape[1])
    same = _alike(beams.text)
    total = beams.score.unsqueeze(1).masked_fill(~same, -torch.inf).logsumexp(dim=2)
    total = total.masked_fill((same & _better(beams.score, earlier)).any(dim=2), -torch.inf)
    if by_context:
        alike = _alike(beams.lm)
        for token in beams.context.unbind(dim=2):
            alike &= _alike(token)
        total = total.masked_fill((alike & _better(total, earlier)).any(dim=2), -torch.inf)
    return moves.scored(total)


@cache
def _earlier(size: int) -> Tensor:
    """(C, C): candidate stands behind another one. Nobody changes it."""
    return torch.ones(size, size, dtype=torch.bool).tril(-1)


def _alike(x: Tensor) -> Tensor:
    """(N, C) -> (N, C, C): candidate is as another one is."""
    return x.unsqueeze(2) == x.unsqueeze(1)


def _better(score: Tensor, earlier: Tensor) -> Tensor:
    """(N, C, C): candidate has a better one, or an earlier one of the same score."""
    mine, other = score.unsqueeze(2), score.unsqueeze(1)
    return (other > mine) | ((other == mine) & earlier)


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
