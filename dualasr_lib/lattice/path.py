"""Options and results of lattice search. Needs no k2."""

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Path", "SearchConfig", "SearchResult"]


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How much of an utterance's CTC lattice is kept."""

    output_beam: float = 8.0
    """Arcs whose best path is further below the best path are left out of the lattice (natural
    log). The default is that of icefall's recipes.
    """
    active_threshold: float = 0.0
    """A token is searched at a frame if its posterior there is at least this share of the best
    token's. 0 means exp(-output_beam), with which the lattice equals that of the full topology
    as long as `max_tokens` cuts no frame.
    """
    max_tokens: int = 100
    """At most so many tokens are searched at a frame, the most likely ones; bounds the arcs of a
    frame by its square, whatever V.
    """

    def __post_init__(self) -> None:
        if not self.output_beam > 0:
            raise ValueError(f"`output_beam` must be positive, but is {self.output_beam}")
        if not 0 <= self.active_threshold <= 1:
            raise ValueError(f"`active_threshold` must be in 0..1, but is {self.active_threshold}")
        if self.max_tokens < 1:
            raise ValueError(f"`max_tokens` must be at least 1, but is {self.max_tokens}")


class Path(NamedTuple):
    """A path through a lattice: the tokens it emits."""

    tokens: tuple[int, ...]
    """Vocabulary ids, no blanks, repeats collapsed."""
    frames: tuple[int, ...]
    """Encoder frame, from the start of the utterance, at which each token is first emitted."""
    score: float
    """Natural log: the sum along the path, or what a search that says so puts here."""
    posteriors: tuple[float, ...] = ()
    confidences: tuple[float, ...] = ()
    """Of each token, where somebody has looked; no search of this package does."""


class SearchResult(NamedTuple):
    """Best paths of a batch, in its order."""

    paths: list[Path]
    fallbacks: int
    """Times that memory ran out and the search was repeated on less (see `fallback`)."""
