"""`nbest-oracle`: of a list's texts the one nearest to the reference: a bound, not a result."""

from dataclasses import dataclass, replace
from typing import Literal

from dualasr_lib.recognition.methods.lists import propose_oracle
from dualasr_lib.recognition.methods.method import (
    Ingredients,
    Searcher,
    SearchMethod,
    WholeSearch,
    direct,
)
from dualasr_lib.recognition.methods.rescore import HEADS_OF, ListOptions, source

__all__ = ["METHOD", "OracleConfig"]


@dataclass(frozen=True, kw_only=True)
class OracleConfig(ListOptions):
    """Which list."""

    list: Literal["nbest", "transducer-beam", "fast-beam"] = "nbest"
    """Whose texts."""


def _fitted(method: SearchMethod, config: OracleConfig) -> SearchMethod:
    return replace(method, heads=HEADS_OF[config.list])


def _whole(config: OracleConfig, given: Ingredients) -> Searcher:
    from dualasr_lib.decoding.rescoring import Scales, rescored

    listed = source(config.list, config, given)
    return direct(rescored(propose_oracle(listed, given.detokenise, given.unit), Scales()))


METHOD = SearchMethod(
    name="nbest-oracle",
    summary="of a list's texts the one nearest to the reference: a bound, not a result",
    lists_texts=True,
    whole=WholeSearch(options=OracleConfig, build=_whole),
    fitted=_fitted,
)
