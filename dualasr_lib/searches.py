"""Search methods by name, for the programs: `greedy` needs no k2, `1best` is k2's lattice search.

Beams are options of the search (`dualasr_lib.lattice.path.SearchConfig`); they come as `key=value`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

from dualasr_lib.config import from_dict, override, to_dict
from dualasr_lib.decoding.contract import OnlineSearch
from dualasr_lib.decoding.greedy import OnlineGreedy, greedy_search
from dualasr_lib.decoding.offline import OfflineSearch

__all__ = ["METHODS", "Method", "NamedSearch", "offline_search", "online_search"]

Method = Literal["greedy", "1best"]
METHODS: tuple[Method, ...] = ("greedy", "1best")


class NamedSearch(NamedTuple):
    """A search and the options it was made with, for reports."""

    search: Any
    """An `OfflineSearch` or an `OnlineSearch`."""
    params: dict[str, Any]
    """All its options, defaults included."""


def offline_search(method: Method, options: Sequence[str]) -> NamedSearch:
    """The search of whole utterances called `method`.

    Raises:
        ValueError: an unknown option, or one of the wrong type.
    """
    if method == "greedy":
        _refuse(options)
        plain: OfflineSearch = greedy_search
        return NamedSearch(plain, {})
    from dualasr_lib.lattice.path import SearchConfig  # k2 is optional
    from dualasr_lib.lattice.search import one_best

    config = from_dict(SearchConfig, override({}, options))
    return NamedSearch(partial(one_best, config=config), to_dict(config))


def online_search(method: Method, options: Sequence[str], vocab_size: int) -> NamedSearch:
    """The search of running streams called `method`; errors as for `offline_search`."""
    if method == "greedy":
        _refuse(options)
        plain: OnlineSearch = OnlineGreedy()
        return NamedSearch(plain, {})
    from dualasr_lib.lattice.online import OnlineConfig
    from dualasr_lib.lattice.online import OnlineSearch as LatticeSearch

    config = from_dict(OnlineConfig, override({}, options))
    search = LatticeSearch(vocab_size, config)
    return NamedSearch(search, {**to_dict(config), "engine": search.engine})


def _refuse(options: Sequence[str]) -> None:
    if options:
        raise ValueError(f"method greedy has no options, but got {' '.join(options)}")
