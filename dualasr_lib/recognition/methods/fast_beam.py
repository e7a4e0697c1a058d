"""`fast-beam`: k2's beam search of the transducer, through an n-gram of tokens if one is given."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from dualasr_lib.decoding.transducer.options import OutcomeConfig
from dualasr_lib.lattice.options import FastBeamConfig
from dualasr_lib.recognition.methods.lists import LM_GRID
from dualasr_lib.recognition.methods.method import (
    Ingredients,
    Searcher,
    SearchMethod,
    WholeSearch,
)
from dualasr_lib.recognition.methods.transducer_beam import tuned_by_searching

if TYPE_CHECKING:
    from typing import Any

    from torch import Tensor

    from dualasr_lib.decoding.offline import Heard, OfflineSearch, Searched
    from dualasr_lib.decoding.rescoring import Scales
    from dualasr_lib.decoding.transducer.joiner import Joiner

__all__ = ["METHOD", "FastBeamOptions"]


@dataclass(frozen=True, kw_only=True)
class FastBeamOptions(FastBeamConfig, OutcomeConfig):
    """Options of the search and of its scores."""

    def __post_init__(self) -> None:
        FastBeamConfig.__post_init__(self)
        OutcomeConfig.__post_init__(self)


def _whole(config: FastBeamOptions, given: Ingredients) -> Searcher:
    from dualasr_lib.decoding.transducer.joiner import Joiner
    from dualasr_lib.lattice.ngram import NgramLm
    from dualasr_lib.lattice.token_graph import token_graph

    joiner, lm = Joiner(given.tables("transducer"), config), given.language.lm
    if lm is not None and not isinstance(lm, NgramLm):
        raise ValueError(f"method {METHOD.name} takes an n-gram of tokens: leave --lexicon out")

    def search(scales: "Scales") -> "OfflineSearch":
        graph = None
        if lm is not None:
            graph = token_graph(lm, given.vocab_size, scales.weight("lm"))
        return partial(_all_at_once, joiner, config, graph)

    return Searcher(search, tuned_by_searching(search))


def _all_at_once(
    joiner: "Joiner", config: FastBeamOptions, graph: "Any", heard: "Heard"
) -> "Searched":
    from dualasr_lib.decoding.offline import Searched
    from dualasr_lib.decoding.transducer.joiner import check_frames
    from dualasr_lib.lattice.transducer_search import fast_beam

    def join(frames: "Tensor", contexts: "Tensor") -> "Tensor":
        logits, norm = joiner.outcomes(frames, joiner.texts(contexts))
        return logits - norm[:, None]

    rows = heard.rows("transducer")
    for frames in rows:
        check_frames(frames, joiner.dim)
    return Searched(fast_beam(rows, join, joiner.vocab_size, joiner.context, config, graph))


METHOD = SearchMethod(
    name="fast-beam",
    summary="k2's beam search of the transducer (through a token n-gram if given)",
    heads=("transducer",),
    lm="optional",
    lm_order="lowest",
    grid={"lm": LM_GRID},
    whole=WholeSearch(options=FastBeamOptions, build=_whole),
)
