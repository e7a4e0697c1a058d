"""`nbest`: texts drawn from the CTC lattice; the most probable one, all its alignments summed."""

from dualasr_lib.lattice.options import NbestConfig
from dualasr_lib.recognition.methods.lists import from_lattice, propose_mix
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

    return direct(rescored(propose_mix({"nbest": from_lattice(config)}, ("ctc",)), Scales()))


METHOD = SearchMethod(
    name="nbest",
    summary="texts drawn from the lattice, the most probable one (alignments summed)",
    lists_texts=True,
    whole=WholeSearch(options=NbestConfig, build=_whole),
)
