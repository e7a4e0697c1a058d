"""`nbest-oracle`: of these the one nearest to the reference: a bound, not a result."""

from dualasr_lib.lattice.options import NbestConfig
from dualasr_lib.recognition.methods.lists import propose_oracle
from dualasr_lib.recognition.methods.method import (
    Ingredients,
    Searcher,
    SearchMethod,
    WholeSearch,
    direct,
)

__all__ = ["METHOD"]


def _whole(config: NbestConfig, given: Ingredients) -> Searcher:
    from dualasr_lib.decoding.rescoring import Scales, rescored

    return direct(rescored(propose_oracle(config, given.detokenise, given.unit), Scales()))


METHOD = SearchMethod(
    name="nbest-oracle",
    summary="of these the one nearest to the reference: a bound, not a result",
    lists_texts=True,
    whole=WholeSearch(options=NbestConfig, build=_whole),
)
