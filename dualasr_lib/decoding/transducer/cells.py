"""What a transducer says at a frame after a context: asked for by searches, computed ahead.

As long as nothing is said, the frames that follow have the same context, and the joiner computes
blocks of rows whatever they are filled with. So a context that is new is scored at its frame and,
as far as the blocks have room, at those behind it. A cell depends on its frame and its context
alone, to the bit, so that nobody can tell which of them were computed together.

N streams, S encoder frames, K tokens of context, M cells, P tokens.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from dualasr_lib.decoding.transducer.joiner import BLANK, BLOCK, Joiner, Outcomes

__all__ = ["BestOutcome", "BestTokens", "Cells", "Context", "Place", "best_outcome", "best_tokens"]

Context = tuple[int, ...]
"""The last K tokens, the latest one last."""


class Place(NamedTuple):
    """Where a cell is."""

    stream: int
    frame: int
    """Of those that the stream is fed."""
    context: Context


class BestOutcome(NamedTuple):
    """The likeliest outcome of a cell."""

    token: int
    """Or the blank."""
    score: float
    """Natural log-probability."""


class BestTokens(NamedTuple):
    """The blank of a cell, and its likeliest tokens."""

    blank: float
    """Natural log-probability."""
    tokens: list[int]
    """(P,), the likeliest first."""
    scores: list[float]
    """(P,) natural log-probabilities."""


def best_outcome(outcomes: Outcomes) -> list[BestOutcome]:
    """Of each of M cells."""
    best, token = outcomes.logits.max(dim=1)
    scores = (best - outcomes.norm).tolist()
    return [BestOutcome(*each) for each in zip(token.tolist(), scores)]


def best_tokens(count: int, outcomes: Outcomes) -> list[BestTokens]:
    """The blank and the best tokens, `count` at most, of each of M cells."""
    logits, norm = outcomes
    blank = (logits[:, BLANK] - norm).tolist()
    logits[:, BLANK] = -torch.inf
    best, token = logits.topk(min(count, logits.shape[1] - 1), dim=1)
    scores = (best - norm[:, None]).tolist()
    return [BestTokens(*each) for each in zip(blank, token.tolist(), scores)]


Cell = TypeVar("Cell")


class _Run(NamedTuple, Generic[Cell]):
    """Cells of one context at successive frames."""

    start: int
    cells: list[Cell]


class Cells(Generic[Cell]):
    """Cells of some frames of some streams; the frames before those asked for last are forgotten.

    Args:
        frames: (N, S, D), padded.
        lens: (N,).
        read: what is kept of outcomes.
        ahead: frames at which a new context is scored at least, where there are that many.
    """

    def __init__(
        self,
        joiner: Joiner,
        frames: Tensor,
        lens: Sequence[int],
        read: Callable[[Outcomes], list[Cell]],
        ahead: int = 1,
    ) -> None:
        self._joiner, self._frames, self._lens = joiner, frames, lens
        self._read, self._ahead = read, ahead
        self._runs: list[dict[Context, _Run[Cell]]] = [{} for _ in lens]

    def at(self, places: Sequence[Place]) -> list[Cell]:
        """The cells at these places."""
        found = [self.get(place) for place in places]
        missing = [place for place, cell in zip(places, found) if cell is None]
        if not missing:
            return [cell for cell in found if cell is not None]
        self._compute(list(dict.fromkeys(missing)))
        return self.at(places)

    def get(self, place: Place) -> Cell | None:
        """The cell at a place, if it has been computed."""
        stream, frame, context = place
        run = self._runs[stream].get(context)
        if run is None or not run.start <= frame < run.start + len(run.cells):
            return None
        return run.cells[frame - run.start]

    def _compute(self, places: Sequence[Place]) -> None:
        blocks = -(-len(places) * self._ahead // BLOCK)
        room = blocks * BLOCK // len(places)
        sizes = [min(room, self._lens[stream] - frame) for stream, frame, _ in places]
        rows = torch.cat(
            [self._frames[p.stream, p.frame : p.frame + s] for p, s in zip(places, sizes)]
        )
        texts = self._joiner.texts(torch.tensor([place.context for place in places]))
        wide = texts.repeat_interleave(torch.tensor(sizes), dim=0)
        found = iter(self._read(self._joiner.outcomes(rows, wide)))
        for stream, frame in {(place.stream, place.frame) for place in places}:
            runs = self._runs[stream]
            for context in [c for c, run in runs.items() if run.start + len(run.cells) <= frame]:
                del runs[context]
        for (stream, frame, context), size in zip(places, sizes):
            self._runs[stream][context] = _Run(frame, list(islice(found, size)))
