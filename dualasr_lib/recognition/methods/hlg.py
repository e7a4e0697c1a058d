"""`hlg`: beam search with a token n-gram, or a lexicon and a word n-gram."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from dualasr_lib.lattice.options import GraphConfig
from dualasr_lib.recognition.methods.lists import LM_GRID
from dualasr_lib.recognition.methods.method import (
    Ingredients,
    Searcher,
    SearchMethod,
    StreamSearch,
    WholeSearch,
)

if TYPE_CHECKING:
    from torch import Tensor

    from dualasr_lib.decoding.contract import OnlineSearch
    from dualasr_lib.decoding.hypothesis import PathLike, ScoredText
    from dualasr_lib.decoding.offline import Heard
    from dualasr_lib.decoding.rescoring import Proposals, Scales
    from dualasr_lib.lattice.lm import LanguageModel

__all__ = ["METHOD"]


@dataclass(frozen=True)
class _Graph:
    """Candidates of one utterance that are searched for when asked, anew for each scale."""

    config: GraphConfig
    lm: "LanguageModel"
    log_probs: "Tensor"

    def best(self, scales: "Scales") -> "PathLike":
        from dualasr_lib.lattice.graph_search import GraphSearch

        return GraphSearch(self.lm, self.config, scales.weight("lm")).whole(self.log_probs)

    def ranked(self, scales: "Scales") -> "tuple[ScoredText, ...]":
        return ()


def _whole(config: GraphConfig, given: Ingredients) -> Searcher:
    from dualasr_lib.decoding.rescoring import Proposals, rescored

    lm = given.language.required(METHOD.name)

    def propose(heard: "Heard") -> "Proposals":
        rows = zip(heard.log_probs, heard.lens.tolist())
        return Proposals([_Graph(config, lm, row[:size]) for row, size in rows], 0)

    return Searcher(partial(rescored, propose), propose)


def _options(options: Sequence[str]) -> type[GraphConfig]:
    return GraphConfig


def _stream(config: GraphConfig, given: Ingredients, scales: "Scales") -> "OnlineSearch":
    from dualasr_lib.decoding.one_head import OneHead
    from dualasr_lib.lattice.graph_search import GraphSearch

    lm = given.language.required(METHOD.name)
    return OneHead(GraphSearch(lm, config, scales.weight("lm")))


METHOD = SearchMethod(
    name="hlg",
    summary="beam search with a token n-gram, or a lexicon and a word n-gram",
    lm="required",
    lm_order="lowest",
    grid={"lm": LM_GRID},
    whole=WholeSearch(options=GraphConfig, build=_whole),
    stream=StreamSearch(options=_options, build=_stream),
)
