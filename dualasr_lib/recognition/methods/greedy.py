"""`greedy`: the best token of each frame."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dualasr_lib.recognition.methods.method import (
    Ingredients,
    NoOptions,
    Searcher,
    SearchMethod,
    StreamSearch,
    WholeSearch,
    direct,
)

if TYPE_CHECKING:
    from dualasr_lib.decoding.contract import OnlineSearch
    from dualasr_lib.decoding.rescoring import Scales

__all__ = ["METHOD"]


def _whole(options: NoOptions, given: Ingredients) -> Searcher:
    from dualasr_lib.decoding.greedy import greedy_search

    return direct(greedy_search)


def _no_options(options: Sequence[str]) -> type[NoOptions]:
    return NoOptions


def _stream(options: NoOptions, given: Ingredients, scales: "Scales") -> "OnlineSearch":
    from dualasr_lib.decoding.greedy import OnlineGreedy
    from dualasr_lib.decoding.one_head import OneHead

    return OneHead(OnlineGreedy())


METHOD = SearchMethod(
    name="greedy",
    summary="best token of each frame; needs no k2",
    whole=WholeSearch(options=NoOptions, build=_whole),
    stream=StreamSearch(options=_no_options, build=_stream),
)
