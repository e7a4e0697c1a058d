"""Online searches that hear one head of a branch, as the frame loops want them.

A search such as `greedy.OnlineGreedy` or `lattice.graph_search.GraphSearch` reads the frames of one
head; loops hand over those of all heads.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from dualasr_lib.core.arrays import Array
from dualasr_lib.decoding.contract import Frames, OnlineStep, TimedText, frames_of, listed
from dualasr_lib.decoding.hypothesis import PathLike

__all__ = ["OneHead", "OneHeadSearch"]


class OneHeadSearch(Protocol):
    """As `contract.OnlineSearch`, but on the frames of one head."""

    def open(self) -> Any:
        """State of a new stream."""

    def step(self, rows: Sequence[Array], states: Sequence[Any], /) -> Sequence[OnlineStep]:
        """Feeds each of some streams its next frames: per stream (S_i, ...), S_i >= 0."""

    def finish(self, state: Any) -> PathLike:
        """Final path of a stream."""


class OneHead:
    """`search` on the frames of one head: a `contract.OnlineSearch`."""

    def __init__(self, search: OneHeadSearch, head: str = "ctc") -> None:
        self.search, self.head = search, head

    def open(self) -> Any:
        """State of a new stream."""
        return self.search.open()

    def step(self, frames: Sequence[Frames], states: Sequence[Any]) -> Sequence[OnlineStep]:
        """Feeds each of some streams its next frames.

        Raises:
            ValueError: the branch has no such head.
        """
        return self.search.step([frames_of(each, self.head) for each in frames], states)

    def finish(self, state: Any) -> PathLike:
        """Final path of a stream."""
        return self.search.finish(state)

    def ranked(self, state: Any) -> Sequence[TimedText]:
        """Texts of a stream that is over, if the search lists any."""
        return listed(self.search, state)
