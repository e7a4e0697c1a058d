"""`fast-beam`: k2's beam search of the transducer, through the graph of an n-gram if given."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from dualasr_lib.decoding.transducer.options import OutcomeConfig
from dualasr_lib.lattice.options import FastBeamConfig, FastBeamStreamConfig
from dualasr_lib.recognition.methods.lists import LM_GRID
from dualasr_lib.recognition.methods.method import (
    Ingredients,
    Searcher,
    SearchMethod,
    StreamSearch,
    WholeSearch,
)
from dualasr_lib.recognition.methods.transducer_beam import tuned_by_searching

if TYPE_CHECKING:
    from typing import Any

    from torch import Tensor

    from dualasr_lib.decoding.contract import OnlineSearch
    from dualasr_lib.decoding.hypothesis import PathLike, ScoredText
    from dualasr_lib.decoding.offline import Heard, OfflineSearch, Searched
    from dualasr_lib.decoding.rescoring import Scales
    from dualasr_lib.decoding.transducer.joiner import Joiner
    from dualasr_lib.lattice.lm import LanguageModel

__all__ = ["METHOD", "FastBeamOptions", "FastBeamStreamOptions"]


@dataclass(frozen=True, kw_only=True)
class FastBeamOptions(FastBeamConfig, OutcomeConfig):
    """Options of the search and of its scores."""

    num_paths: int = 100
    """Paths drawn from the lattice of an utterance for its n-best list; many spell the same text.
    0: no list."""

    def __post_init__(self) -> None:
        FastBeamConfig.__post_init__(self)
        OutcomeConfig.__post_init__(self)
        if self.num_paths < 0:
            raise ValueError(f"`num_paths` must not be negative, but is {self.num_paths}")


@dataclass(frozen=True, kw_only=True)
class FastBeamStreamOptions(FastBeamStreamConfig, OutcomeConfig):
    """Options on running streams."""

    def __post_init__(self) -> None:
        FastBeamStreamConfig.__post_init__(self)
        OutcomeConfig.__post_init__(self)


def _graph(given: Ingredients, scales: "Scales") -> "Any":
    """The language model with its weight as a graph, if there is one."""
    from dualasr_lib.lattice.lexicon import LexiconLm
    from dualasr_lib.lattice.ngram import NgramLm
    from dualasr_lib.lattice.token_graph import token_graph

    lm = given.language.lm
    if lm is None:
        return None
    assert isinstance(lm, NgramLm | LexiconLm)
    return token_graph(lm, given.vocab_size, scales.weight("lm"))


def _join(joiner: "Joiner", frames: "Tensor", contexts: "Tensor") -> "Tensor":
    logits, norm = joiner.outcomes(frames, joiner.texts(contexts))
    return logits - norm[:, None]


def _whole(config: FastBeamOptions, given: Ingredients) -> Searcher:
    from dualasr_lib.decoding.rescoring import Scales
    from dualasr_lib.decoding.transducer.joiner import Joiner

    joiner = Joiner(given.tables("transducer"), config)
    _graph(given, Scales())  # what is wrong with the language is said at once

    def search(scales: "Scales") -> "OfflineSearch":
        graph = _graph(given, scales)
        return partial(_all_at_once, joiner, config, graph, given.language.lm, scales)

    return Searcher(search, tuned_by_searching(search))


def _all_at_once(
    joiner: "Joiner",
    config: FastBeamOptions,
    graph: "Any",
    lm: "LanguageModel | None",
    scales: "Scales",
    heard: "Heard",
) -> "Searched":
    from dualasr_lib.decoding.offline import Searched
    from dualasr_lib.decoding.transducer.joiner import check_frames
    from dualasr_lib.lattice.transducer_search import fast_beam_lists

    rows = heard.rows("transducer")
    for frames in rows:
        check_frames(frames, joiner.dim)
    join = partial(_join, joiner)
    lists, fallbacks = fast_beam_lists(
        rows, join, joiner.vocab_size, joiner.context, config, graph, config.num_paths
    )
    nbest = [tuple(_scored(path, lm, scales.weight("lm")) for path in paths) for paths in lists]
    return Searched([paths[0] for paths in lists], fallbacks, nbest if config.num_paths else ())


def _scored(path: "PathLike", lm: "LanguageModel | None", scale: float) -> "ScoredText":
    """A text with what its path has of the transducer, and of the language model."""
    from dualasr_lib.decoding.hypothesis import ScoredText
    from dualasr_lib.lattice.lm import text_score

    if lm is None:
        return ScoredText(path.tokens, {"transducer": path.score}, path.frames)
    of_lm = text_score(lm, path.tokens)
    scores = {"transducer": path.score - scale * of_lm, "lm": of_lm}
    return ScoredText(path.tokens, scores, path.frames)


def _options(options: Sequence[str]) -> type[FastBeamStreamOptions]:
    return FastBeamStreamOptions


def _stream(config: FastBeamStreamOptions, given: Ingredients, scales: "Scales") -> "OnlineSearch":
    from dualasr_lib.decoding.one_head import OneHead
    from dualasr_lib.decoding.transducer.joiner import Joiner
    from dualasr_lib.lattice.transducer_stream import OnlineFastBeam

    joiner = Joiner(given.tables("transducer"), config)
    search = OnlineFastBeam(
        partial(_join, joiner),
        joiner.dim,
        joiner.vocab_size,
        joiner.context,
        config,
        _graph(given, scales),
    )
    return OneHead(search, "transducer")


METHOD = SearchMethod(
    name="fast-beam",
    summary="k2's beam search of the transducer (through the graph of an n-gram if given)",
    heads=("transducer",),
    lm="optional",
    lm_order="lowest",
    grid={"lm": LM_GRID},
    lists_texts=True,
    whole=WholeSearch(options=FastBeamOptions, build=_whole),
    stream=StreamSearch(options=_options, build=_stream),
)
