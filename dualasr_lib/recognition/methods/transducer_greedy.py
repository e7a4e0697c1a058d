"""`transducer-greedy`: the best outcome of the transducer at each frame."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dualasr_lib.decoding.transducer.options import GreedyConfig
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


def _whole(config: GreedyConfig, given: Ingredients) -> Searcher:
    from dualasr_lib.decoding.offline import Searched
    from dualasr_lib.decoding.transducer.greedy import TransducerGreedy

    found = TransducerGreedy(given.tables("transducer"), config)

    def search(heard: "Heard") -> "Searched":
        rows = heard.rows("transducer")
        steps = found.step(rows, [found.open()] * len(rows))
        return Searched([found.finish(step.state) for step in steps])

    return direct(search)


def _options(options: Sequence[str]) -> type[GreedyConfig]:
    return GreedyConfig


def _stream(config: GreedyConfig, given: Ingredients, scales: "Scales") -> "OnlineSearch":
    from dualasr_lib.decoding.one_head import OneHead
    from dualasr_lib.decoding.transducer.greedy import TransducerGreedy

    return OneHead(TransducerGreedy(given.tables("transducer"), config), "transducer")


METHOD = SearchMethod(
    name="transducer-greedy",
    summary="best outcome of the transducer at each frame; needs no k2",
    heads=("transducer",),
    whole=WholeSearch(options=GreedyConfig, build=_whole),
    stream=StreamSearch(options=_options, build=_stream),
)
