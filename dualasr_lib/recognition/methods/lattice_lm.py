"""`lattice-lm`: every path of the CTC lattice rescored with an n-gram."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from dualasr_lib.lattice.options import LmLatticeConfig
from dualasr_lib.recognition.methods.lists import LM_GRID
from dualasr_lib.recognition.methods.method import (
    Ingredients,
    Searcher,
    SearchMethod,
    WholeSearch,
)

if TYPE_CHECKING:
    from dualasr_lib.decoding.hypothesis import PathLike, ScoredText
    from dualasr_lib.decoding.offline import Heard
    from dualasr_lib.decoding.rescoring import Proposals, Scales
    from dualasr_lib.lattice.lm_lattice import LmLattice

__all__ = ["METHOD"]


@dataclass(frozen=True)
class _Lattice:
    """Candidates that stand in a lattice; None for an utterance without frames."""

    lattice: "LmLattice | None"

    def best(self, scales: "Scales") -> "PathLike":
        from dualasr_lib.decoding.hypothesis import TokenPath

        if self.lattice is None:
            return TokenPath((), (), 0.0)
        return self.lattice.best(scales.weight("lm"))

    def ranked(self, scales: "Scales") -> "tuple[ScoredText, ...]":
        return ()


def _whole(config: LmLatticeConfig, given: Ingredients) -> Searcher:
    from dualasr_lib.decoding.rescoring import Proposals, rescored
    from dualasr_lib.lattice.lm_lattice import lm_lattices

    lm = given.language.required(METHOD.name)

    def propose(heard: "Heard") -> "Proposals":
        found = lm_lattices(heard.log_probs, heard.lens, config, lm)
        return Proposals([_Lattice(lattice) for lattice in found.results], found.fallbacks)

    return Searcher(partial(rescored, propose), propose)


METHOD = SearchMethod(
    name="lattice-lm",
    summary="every path of the lattice rescored with an n-gram",
    lm="required",
    grid={"lm": LM_GRID},
    whole=WholeSearch(options=LmLatticeConfig, build=_whole),
)
