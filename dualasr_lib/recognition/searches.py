"""Search methods by name, for the programs.

    greedy         best token of each frame; needs no k2
    1best          best path of the k2 CTC lattice
    nbest          texts drawn from the lattice, the most probable one (all its alignments summed)
    nbest-oracle   of these the one nearest to the reference: a bound, not a result
    hlg            beam search with a token n-gram, or a lexicon and a word n-gram
    nbest-lm       n-best list rescored with an n-gram
    lattice-lm     every path of the lattice rescored with an n-gram
    attention      n-best list rescored with the branch's attention decoder (and an n-gram if given)
    two-pass       streaming only: `attention` of the full branch at the end of each sentence

Options of a method are those of its configuration (`SearchConfig`, `NbestConfig`, `GraphConfig`,
`LmLatticeConfig`, `IntersecterConfig`) and come as `key=value`. Methods that weigh scores have a
grid of scales, from which `tuning` takes the best on validation data.

k2 is optional: what needs it is imported where it is used.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any, Literal, NamedTuple, TypeVar

from dualasr_lib.core.config import from_dict, override, to_dict
from dualasr_lib.decoding.contract import OnlineSearch
from dualasr_lib.decoding.greedy import OnlineGreedy, greedy_search
from dualasr_lib.decoding.offline import Detokenise, Heard, OfflineSearch, Searched
from dualasr_lib.decoding.one_head import OneHead
from dualasr_lib.decoding.rescoring import Propose, Scales, rescored
from dualasr_lib.lattice.graph_search import GraphConfig, GraphSearch
from dualasr_lib.lattice.path import SearchConfig
from dualasr_lib.recognition.language import Language

__all__ = [
    "LM_METHODS",
    "METHODS",
    "NBEST_METHODS",
    "ONLINE_METHODS",
    "WEIGHTED_METHODS",
    "Method",
    "OfflineMethod",
    "OnlineMethod",
    "offline_method",
    "online_method",
]

Method = Literal[
    "greedy", "1best", "nbest", "nbest-oracle", "hlg", "nbest-lm", "lattice-lm", "attention"
]
METHODS: tuple[Method, ...] = (
    "greedy", "1best", "nbest", "nbest-oracle", "hlg", "nbest-lm", "lattice-lm", "attention"
)  # fmt: skip
ONLINE_METHODS: tuple[Method, ...] = ("greedy", "1best", "hlg")
LM_METHODS: tuple[Method, ...] = ("hlg", "nbest-lm", "lattice-lm")
"""Those that cannot do without a language model."""
WEIGHTED_METHODS: tuple[Method, ...] = (*LM_METHODS, "attention")
"""Those that weigh scores."""
NBEST_METHODS: tuple[Method, ...] = ("nbest", "nbest-oracle", "nbest-lm", "attention")
"""Those that list texts."""

_LM_GRID = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
_ATTENTION_GRID = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)

C = TypeVar("C")


class OfflineMethod(NamedTuple):
    """A search of whole utterances."""

    params: dict[str, Any]
    """All its options, defaults included, and its language model."""
    search: Callable[[Scales], OfflineSearch]
    """The search with the scales that are given to it; methods without scales ignore them."""
    propose: Propose | None = None
    """What `tune` needs; None if nothing is to be tuned."""
    grid: tuple[Scales, ...] = ()
    """The scales to try."""


class OnlineMethod(NamedTuple):
    """A search of running streams."""

    params: dict[str, Any]
    search: OnlineSearch


def offline_method(
    method: Method, options: Sequence[str], language: Language, detokenise: Detokenise
) -> OfflineMethod:
    """The search of whole utterances called `method`.

    Args:
        detokenise: only the oracle needs it.

    Raises:
        ValueError: an unknown option, one of the wrong type, or a language model that is missing.
    """
    if method == "greedy":
        _options(_NoOptions, options, method)
        return OfflineMethod({}, lambda scales: greedy_search)
    if method == "1best":
        return _one_best(_options(SearchConfig, options, method))
    if method == "hlg":
        from dualasr_lib.recognition.proposers import propose_graph

        graph = _graph_options(options)
        propose = propose_graph(graph, language.required(method))
        made = _weighted(graph, language, propose, _grid(lm=_LM_GRID))
        del made.params["lm_scale"]  # it is one of the scales
        return made
    if method == "lattice-lm":
        from dualasr_lib.lattice.lm_lattice import LmLatticeConfig
        from dualasr_lib.recognition.proposers import propose_lattice

        lattice = _options(LmLatticeConfig, options, method)
        lm = language.required(method)
        return _weighted(lattice, language, propose_lattice(lattice, lm), _grid(lm=_LM_GRID))
    return _nbest(method, options, language, detokenise)


def online_method(
    method: Method,
    options: Sequence[str],
    vocab_size: int,
    language: Language,
    scales: Scales,
) -> OnlineMethod:
    """The search of running streams called `method`; errors as for `offline_method`.

    For `1best` the option `engine=k2` asks for k2's own intersection, chunk by chunk, with the
    options of `IntersecterConfig`; without it the same path comes from the best token of each
    frame.
    """
    if method == "hlg":
        config = replace(_graph_options(options), lm_scale=scales.weight("lm"))
        search = GraphSearch(language.required(method), config)
        return OnlineMethod({**to_dict(config), **language.params}, OneHead(search))
    if method == "1best" and "engine=k2" in options:
        from dualasr_lib.lattice.intersecter import IntersecterConfig, OnlineIntersecter

        others = [option for option in options if option != "engine=k2"]
        engine = _options(IntersecterConfig, others, method)
        params = {**to_dict(engine), "engine": "k2"}
        return OnlineMethod(params, OneHead(OnlineIntersecter(vocab_size, engine)))
    if method not in ONLINE_METHODS:
        raise ValueError(
            f"method {method} needs whole utterances; streams are searched by "
            f"{', '.join(ONLINE_METHODS)}"
        )
    _options(_NoOptions, options, method)
    return OnlineMethod({"engine": "best token of each frame"}, OneHead(OnlineGreedy()))


@dataclass(frozen=True, kw_only=True)
class _NoOptions:
    pass


def _graph_options(options: Sequence[str]) -> GraphConfig:
    if any(option.startswith("lm_scale=") for option in options):
        raise ValueError("options of method hlg: lm_scale is one of the scales, give --scales lm=")
    return _options(GraphConfig, options, "hlg")


def _options(cls: type[C], options: Sequence[str], method: str) -> C:
    try:
        return from_dict(cls, override({}, options))
    except ValueError as error:
        raise ValueError(f"options of method {method}: {error}") from None


def _one_best(config: SearchConfig) -> OfflineMethod:
    from dualasr_lib.lattice.search import one_best

    def search(heard: Heard) -> Searched:
        return Searched(*one_best(heard.log_probs, heard.lens, config))

    return OfflineMethod(to_dict(config), lambda scales: search)


def _nbest(
    method: Method, options: Sequence[str], language: Language, detokenise: Detokenise
) -> OfflineMethod:
    from dualasr_lib.lattice.nbest import NbestConfig
    from dualasr_lib.recognition.proposers import propose_nbest, propose_oracle

    config = _options(NbestConfig, options, method)
    if method == "nbest":
        return _unweighted(config, propose_nbest(config))
    if method == "nbest-oracle":
        return _unweighted(config, propose_oracle(config, detokenise))
    if method == "nbest-lm":
        propose = propose_nbest(config, language.required(method))
        return _weighted(config, language, propose, _grid(lm=_LM_GRID))
    propose = propose_nbest(config, language.lm, attention=True)
    lm_grid = (0.0,) if language.lm is None else _LM_GRID
    return _weighted(config, language, propose, _grid(lm_grid, _ATTENTION_GRID))


def _weighted(
    config: Any, language: Language, propose: Propose, grid: tuple[Scales, ...]
) -> OfflineMethod:
    params = {**to_dict(config), **language.params}
    return OfflineMethod(params, partial(rescored, propose), propose, grid)


def _unweighted(config: Any, propose: Propose) -> OfflineMethod:
    return OfflineMethod(to_dict(config), lambda scales: rescored(propose, Scales()))


def _grid(lm: Sequence[float] = (0.0,), attention: Sequence[float] = (0.0,)) -> tuple[Scales, ...]:
    return tuple(Scales(lm=a, attention=b) for a, b in product(lm, attention))
