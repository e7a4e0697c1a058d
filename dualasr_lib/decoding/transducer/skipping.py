"""Frames that a transducer's search leaves out because CTC is sure of their blank.

Whether a frame is searched depends on that frame alone, so that streams and whole utterances skip
the same ones, and emissions keep the numbers of their frames. The blank of a skipped frame adds
nothing to a path's score.

N streams, S encoder frames, V vocabulary (blank 0).
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from dualasr_lib.decoding.contract import Frames, OnlineSearch, OnlineStep, frames_of, listed
from dualasr_lib.decoding.hypothesis import PathLike, ScoredText
from dualasr_lib.decoding.one_head import OneHead, OneHeadSearch
from dualasr_lib.decoding.transducer.joiner import BLANK

__all__ = ["SkippingSearch", "hearing", "searched_frames"]

_HEAD = "transducer"


class SkippingSearch(OneHeadSearch, Protocol):
    """A search of a transducer that can leave out frames."""

    def step(
        self,
        rows: Sequence[Tensor],
        states: Sequence[Any],
        kept: Sequence[Tensor] | None = None,
        /,
    ) -> Sequence[OnlineStep]:
        """Feeds each of some streams its next frames, of which it searches the `kept` ones."""


def searched_frames(frames: Sequence[Frames], skip_blank: float) -> list[Tensor] | None:
    """Per stream (S_i,) bool, True where the search has work; None: everywhere.

    Raises:
        ValueError: frames are to be skipped, but the branch has no CTC head.
    """
    if skip_blank >= 1:
        return None
    sure = math.log(skip_blank)
    return [frames_of(each, "ctc")[:, BLANK] <= sure for each in frames]


def hearing(search: SkippingSearch, skip_blank: float) -> OnlineSearch:
    """`search` on what the heads of a branch say."""
    return OneHead(search, _HEAD) if skip_blank >= 1 else _Skipping(search, skip_blank)


class _Skipping:
    """`search` on the frames that CTC is not sure of: a `contract.OnlineSearch`."""

    def __init__(self, search: SkippingSearch, skip_blank: float) -> None:
        self.search, self._skip_blank = search, skip_blank

    def open(self) -> Any:
        return self.search.open()

    def step(self, frames: Sequence[Frames], states: Sequence[Any]) -> Sequence[OnlineStep]:
        kept = searched_frames(frames, self._skip_blank)
        return self.search.step([frames_of(each, _HEAD) for each in frames], states, kept)

    def finish(self, state: Any) -> PathLike:
        return self.search.finish(state)

    def ranked(self, state: Any) -> tuple[ScoredText, ...]:
        return listed(self.search, state)
