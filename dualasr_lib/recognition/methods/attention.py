"""`attention`: an n-best list rescored with the branch's attention decoder, and an n-gram if one is
given. It also is the second pass of streams.
"""

from dualasr_lib.lattice.options import NbestConfig
from dualasr_lib.recognition.methods.lists import HEAD_GRID, LM_GRID, from_lattice, propose_mix
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

    propose = propose_mix({"nbest": from_lattice(config)}, ("ctc", "attention"), given.language.lm)
    return Searcher(partial(rescored, propose), propose)


METHOD = SearchMethod(
    name="attention",
    summary="n-best list rescored with the attention decoder (and an n-gram if given)",
    heads=("ctc", "attention"),
    lm="optional",
    grid={"lm": LM_GRID, "attention": HEAD_GRID},
    lists_texts=True,
    # Somebody waits for the second pass, and hardly any text that is further behind by CTC is
    # chosen in the end: on `valid` of the demo corpus the CER is the same with a third of the
    # texts.
    second_pass=("text_beam=3.0",),
    whole=WholeSearch(options=NbestConfig, build=_whole),
)
