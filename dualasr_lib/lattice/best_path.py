"""How the best path is read from a CTC lattice of k2.

A path has one arc per frame (label = token or blank of that frame; aux label = the token at the
frame that first emits it, else 0) and a last arc with label -1.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from dualasr_lib.lattice.backend import k2
from dualasr_lib.lattice.path import Path

__all__ = ["BestPath", "best_paths", "emissions"]


class BestPath(NamedTuple):
    """A best path, and what an online search asks about its last frame."""

    path: Path
    ends_in_blank: bool


def best_paths(lattice: Any) -> list[BestPath]:
    """Best path of each lattice of a k2.Fsa with 3 axes, whose aux labels are vocabulary ids.

    Raises:
        RuntimeError: an empty lattice, which check_log_probs and the CTC topology exclude.
    """
    best = k2.shortest_path(lattice, use_double_scores=True)
    scores = best.get_tot_scores(use_double_scores=True, log_semiring=False).tolist()
    return [_read(best[index], score) for index, score in enumerate(scores)]


def emissions(aux_labels: Sequence[int]) -> list[tuple[int, int]]:
    """(frame, aux label) of each token that a path of one arc per frame emits."""
    return [(frame, label) for frame, label in enumerate(aux_labels) if label > 0]


def _read(fsa: Any, score: float) -> BestPath:
    labels = fsa.labels.tolist()
    if not labels:
        raise RuntimeError("k2 returned an empty lattice")
    emitted = emissions(fsa.aux_labels.tolist())
    path = Path(
        tokens=tuple(label for _, label in emitted),
        frames=tuple(frame for frame, _ in emitted),
        score=score,
    )
    return BestPath(path, ends_in_blank=labels[-2] == 0)
