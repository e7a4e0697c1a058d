"""`nbest-lm`: an n-best list rescored with an n-gram."""

from dualasr_lib.lattice.options import NbestConfig
from dualasr_lib.recognition.methods.lists import LM_GRID, from_lattice, propose_mix
from dualasr_lib.recognition.methods.method import (
    Ingredients,
    Searcher,
    SearchMethod,
    WholeSearch,
)

__all__ = ["METHOD"]


def _whole(config: NbestConfig, given: Ingredients) -> Searcher:
    from functools import partial

    from dualasr_lib.decoding.rescoring import rescored

    propose = propose_mix({"nbest": from_lattice(config)}, ("ctc",), given.language.lm)
    return Searcher(partial(rescored, propose), propose)


METHOD = SearchMethod(
    name="nbest-lm",
    summary="n-best list rescored with an n-gram",
    lm="required",
    grid={"lm": LM_GRID},
    lists_texts=True,
    whole=WholeSearch(options=NbestConfig, build=_whole),
)
