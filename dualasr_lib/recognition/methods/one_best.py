"""`1best`: the best path of the CTC lattice.

In streams that path comes from the best token of each frame, which is the same; the option
`engine=k2` asks for k2's own intersection, chunk by chunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dualasr_lib.lattice.options import IntersecterConfig
from dualasr_lib.lattice.path import SearchConfig
from dualasr_lib.recognition.methods.method import (
    Ingredients,
    Searcher,
    SearchMethod,
    StreamSearch,
    WholeSearch,
    direct,
)

if TYPE_CHECKING:
    from dualasr_lib.decoding.contract import OnlineSearch
    from dualasr_lib.decoding.offline import Heard, Searched
    from dualasr_lib.decoding.rescoring import Scales

__all__ = ["METHOD"]


@dataclass(frozen=True, kw_only=True)
class _Frames:
    """The best token of each frame."""

    engine: Literal["frames"] = "frames"


@dataclass(frozen=True, kw_only=True)
class _K2(IntersecterConfig):
    """k2's intersection."""

    engine: Literal["k2"] = "k2"


def _whole(config: SearchConfig, given: Ingredients) -> Searcher:
    from dualasr_lib.decoding.offline import Searched
    from dualasr_lib.lattice.search import one_best

    def search(heard: "Heard") -> "Searched":
        return Searched(*one_best(heard.log_probs, heard.lens, config))

    return direct(search)


def _engine(options: Sequence[str]) -> type[_Frames | _K2]:
    return _K2 if "engine=k2" in options else _Frames


def _stream(config: _Frames | _K2, given: Ingredients, scales: "Scales") -> "OnlineSearch":
    from dualasr_lib.decoding.greedy import OnlineGreedy
    from dualasr_lib.decoding.one_head import OneHead

    if isinstance(config, _K2):
        from dualasr_lib.lattice.intersecter import OnlineIntersecter

        return OneHead(OnlineIntersecter(given.vocab_size, config))
    return OneHead(OnlineGreedy())


METHOD = SearchMethod(
    name="1best",
    summary="best path of the CTC lattice",
    whole=WholeSearch(options=SearchConfig, build=_whole),
    stream=StreamSearch(options=_engine, build=_stream),
)
