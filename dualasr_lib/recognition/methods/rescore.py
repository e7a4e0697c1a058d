"""`rescore`: texts of any lists, weighed by any heads of the branch, and an n-gram if one is given.

Lists are those of methods that list texts; `first-pass` is what the first pass of a stream has
proposed, which only a second pass has. Scores are of whole texts: CTC's and the transducer's are
sums over all alignments. `attention` is the special case of one list and two scores.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from dualasr_lib.decoding.transducer.options import BeamConfig
from dualasr_lib.lattice.options import NbestConfig
from dualasr_lib.recognition.methods import fast_beam, transducer_beam
from dualasr_lib.recognition.methods.fast_beam import FastBeamOptions
from dualasr_lib.recognition.methods.lists import (
    HEAD_GRID,
    LM_GRID,
    Listed,
    from_lattice,
    from_search,
    propose_mix,
    proposed_before,
)
from dualasr_lib.recognition.methods.method import (
    Ingredients,
    Searcher,
    SearchMethod,
    WholeSearch,
)

if TYPE_CHECKING:
    from dualasr_lib.decoding.offline import Heard

__all__ = [
    "HEADS_OF",
    "METHOD",
    "ListBeamConfig",
    "ListOptions",
    "RescoreConfig",
    "Source",
    "source",
]

Source = Literal["nbest", "transducer-beam", "fast-beam", "first-pass"]

HEADS_OF: dict[Source, tuple[str, ...]] = {
    "nbest": ("ctc",),
    "transducer-beam": transducer_beam.METHOD.heads,
    "fast-beam": fast_beam.METHOD.heads,
    "first-pass": (),
}
"""What each list reads."""


@dataclass(frozen=True, kw_only=True)
class ListBeamConfig(BeamConfig):
    """As `transducer-beam`, but for many texts instead of the best one."""

    beam: int = 8
    recombine: Literal["context", "text"] = "text"


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """Options of each list."""

    nbest: NbestConfig = field(default_factory=NbestConfig)
    """Of the CTC lattice's."""
    beam: ListBeamConfig = field(default_factory=ListBeamConfig)
    """Of the transducer beam's."""
    fast: FastBeamOptions = field(default_factory=FastBeamOptions)
    """Of k2's."""


@dataclass(frozen=True, kw_only=True)
class RescoreConfig(ListOptions):
    """Which texts are proposed, and who judges them."""

    lists: tuple[Source, ...] = ("nbest",)
    """Where texts come from; each text counts once."""
    scores: tuple[str, ...] = ("ctc", "transducer", "attention")
    """Heads that weigh them. CTC's weight, or else that of the first one, is the unit."""

    def __post_init__(self) -> None:
        for name in ("lists", "scores"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(
                    f"`{name}` must have one name or more, each once, but is {list(values)}"
                )
        if self.lists == ("first-pass",):
            raise ValueError(
                "`lists` must have another one beside first-pass, which is there in a second pass "
                "only and not where scales are tuned"
            )


def _fitted(method: SearchMethod, config: RescoreConfig) -> SearchMethod:
    """The heads that the options need, and a weight for each score but the unit."""
    listing = [head for name in config.lists for head in HEADS_OF[name]]
    heads = tuple(dict.fromkeys([*listing, *config.scores]))
    grid: dict[str, tuple[float, ...]] = {"lm": LM_GRID}
    if "ctc" in config.scores and len(config.scores) > 1:
        grid["ctc"] = (1.0, 0.0)
    unit = "ctc" if "ctc" in config.scores else config.scores[0]
    grid |= {name: HEAD_GRID for name in config.scores if name != unit}
    return replace(method, heads=heads, grid=grid)


def _whole(config: RescoreConfig, given: Ingredients) -> Searcher:
    from dualasr_lib.decoding.rescoring import rescored

    sources = {str(name): source(name, config, given) for name in config.lists}
    propose = propose_mix(sources, config.scores, given.language.lm)
    return Searcher(partial(rescored, propose), propose)


def source(name: Source, config: ListOptions, given: Ingredients) -> "Callable[[Heard], Listed]":
    """The list of that name."""
    from dualasr_lib.decoding.rescoring import Scales

    if name == "nbest":
        return from_lattice(config.nbest)
    if name == "first-pass":
        return proposed_before
    method = transducer_beam.METHOD if name == "transducer-beam" else fast_beam.METHOD
    if not method.lists_texts:
        raise ValueError(f"`lists` must name methods that list texts, but {name} lists none")
    options = config.beam if name == "transducer-beam" else config.fast
    alone = given._replace(language=type(given.language)())  # the n-gram is a score here
    return from_search(method.whole.build(options, alone).search(Scales()))


METHOD = _fitted(
    SearchMethod(
        name="rescore",
        summary="texts of any lists, weighed by CTC, transducer and attention (and an n-gram)",
        lm="optional",
        by_coordinates=True,
        lists_texts=True,
        second_pass=('lists=["nbest","first-pass"]', "nbest.text_beam=3.0"),
        whole=WholeSearch(options=RescoreConfig, build=_whole),
        fitted=_fitted,
    ),
    RescoreConfig(),
)
