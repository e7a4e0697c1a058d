"""Options and results of lattice search, and how a best path is read from a lattice.

A path of a CTC lattice has one arc per frame (label = token or blank of that frame; aux label =
the token at the frame that first emits it, else 0) and a last arc with label -1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dualasr_lib.lattice.backend import k2

__all__ = ["BestPath", "Path", "SearchConfig", "SearchResult", "best_paths"]


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Beams of `k2.intersect_dense_pruned` and of the restriction to active tokens.

    The defaults of the beams are those of icefall's recipes.
    """

    search_beam: float = 20.0
    """Paths further below the best one are dropped while searching (natural log)."""
    output_beam: float = 8.0
    """Arcs whose best path is further below the best path are left out of the lattice (natural
    log).
    """
    min_active: int = 30
    """States kept at each frame even outside the search beam."""
    max_active: int = 10000
    """States kept at most at each frame."""
    active_threshold: float = 0.0
    """A token is searched if at some frame of the utterance its posterior is at least this share
    of the best token's. 0 means exp(-output_beam), with which the lattice equals that of the
    full topology.
    """
    max_tokens: int = 500
    """At most so many tokens are searched per utterance (plus each frame's best); bounds memory
    whatever V.
    """

    def __post_init__(self) -> None:
        for name in ("search_beam", "output_beam"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, but is {getattr(self, name)}")
        if not 0 <= self.min_active <= self.max_active or self.max_active < 1:
            raise ValueError(
                "0 <= `min_active` <= `max_active` and 1 <= `max_active` must hold, "
                f"but they are {self.min_active} and {self.max_active}"
            )
        if not 0 <= self.active_threshold <= 1:
            raise ValueError(f"`active_threshold` must be in 0..1, but is {self.active_threshold}")
        if self.max_tokens < 1:
            raise ValueError(f"`max_tokens` must be at least 1, but is {self.max_tokens}")

    @property
    def threshold(self) -> float:
        """The share that is used: `active_threshold`, or the exact one."""
        return self.active_threshold or math.exp(-self.output_beam)


class Path(NamedTuple):
    """A path through a lattice: the tokens it emits."""

    tokens: tuple[int, ...]
    """Vocabulary ids, no blanks, repeats collapsed."""
    frames: tuple[int, ...]
    """Encoder frame, from the start of the utterance, at which each token is first emitted."""
    score: float
    """Sum of log-probabilities (natural log)."""


class SearchResult(NamedTuple):
    """Best paths of a batch, in its order."""

    paths: list[Path]
    fallbacks: int
    """Times that memory ran out and the search was repeated on less (see `fallback`)."""


class BestPath(NamedTuple):
    """A best path, and what an online search asks about its last frame."""

    path: Path
    ends_in_blank: bool


def best_paths(lattice: Any, tokens: Sequence[Sequence[int] | range]) -> list[BestPath]:
    """Best path of each lattice of a k2.Fsa with 3 axes.

    Args:
        lattice: aux labels are columns of the utterance's restricted log-probs.
        tokens: per utterance the vocabulary id of each column.

    Raises:
        RuntimeError: an empty lattice, which check_log_probs and the CTC topology exclude.
    """
    best = k2.shortest_path(lattice, use_double_scores=True)
    scores = best.get_tot_scores(use_double_scores=True, log_semiring=False).tolist()
    return [_read(best[index], ids, scores[index]) for index, ids in enumerate(tokens)]


def _read(fsa: Any, tokens: Sequence[int] | range, score: float) -> BestPath:
    labels = fsa.labels.tolist()
    if not labels:
        raise RuntimeError("k2 returned an empty lattice")
    emitted = [
        (frame, column) for frame, column in enumerate(fsa.aux_labels.tolist()) if column > 0
    ]
    path = Path(
        tokens=tuple(tokens[column] for _, column in emitted),
        frames=tuple(frame for frame, _ in emitted),
        score=score,
    )
    return BestPath(path, ends_in_blank=labels[-2] == 0)
