"""`transducer-greedy`: the best outcome of the transducer at each frame."""

from collections.abc import Sequence
from dataclasses import replace
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

__all__ = ["METHOD", "with_skipping"]


def with_skipping(method: SearchMethod, config: GreedyConfig) -> SearchMethod:
    """The method with the heads that it needs: frames are skipped by CTC."""
    return method if config.skip_blank >= 1 else replace(method, heads=(*method.heads, "ctc"))


def _whole(config: GreedyConfig, given: Ingredients) -> Searcher:
    from dualasr_lib.decoding.offline import Searched
    from dualasr_lib.decoding.transducer.greedy import TransducerGreedy
    from dualasr_lib.decoding.transducer.skipping import searched_frames

    found = TransducerGreedy(given.tables("transducer"), config)

    def search(heard: "Heard") -> "Searched":
        rows = heard.rows("transducer")
        kept = searched_frames(heard.each(), config.skip_blank)
        steps = found.step(rows, [found.open()] * len(rows), kept)
        return Searched([found.finish(step.state) for step in steps])

    return direct(search)


def _options(options: Sequence[str]) -> type[GreedyConfig]:
    return GreedyConfig


def _stream(config: GreedyConfig, given: Ingredients, scales: "Scales") -> "OnlineSearch":
    from dualasr_lib.decoding.transducer.greedy import TransducerGreedy
    from dualasr_lib.decoding.transducer.skipping import hearing

    return hearing(TransducerGreedy(given.tables("transducer"), config), config.skip_blank)


METHOD = SearchMethod(
    name="transducer-greedy",
    summary="best outcome of the transducer at each frame; needs no k2",
    heads=("transducer",),
    fitted=with_skipping,
    whole=WholeSearch(options=GreedyConfig, build=_whole),
    stream=StreamSearch(options=_options, build=_stream),
)
