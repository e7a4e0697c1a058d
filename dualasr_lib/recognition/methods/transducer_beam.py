"""`transducer-beam`: beam search of the transducer, with an n-gram of tokens if one is given."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from dualasr_lib.decoding.transducer.options import BeamConfig
from dualasr_lib.recognition.methods.lists import LM_GRID
from dualasr_lib.recognition.methods.method import (
    Ingredients,
    Searcher,
    SearchMethod,
    StreamSearch,
    WholeSearch,
)
from dualasr_lib.recognition.methods.transducer_greedy import with_skipping

if TYPE_CHECKING:
    from collections.abc import Callable

    from dualasr_lib.decoding.contract import OnlineSearch
    from dualasr_lib.decoding.hypothesis import PathLike, ScoredText
    from dualasr_lib.decoding.offline import Heard, OfflineSearch, Searched
    from dualasr_lib.decoding.rescoring import Proposals, Propose, Scales
    from dualasr_lib.decoding.transducer.beam import TransducerBeam
    from dualasr_lib.decoding.transducer.beams import Language

__all__ = ["METHOD", "tuned_by_searching"]


def _search(config: BeamConfig, given: Ingredients, scales: "Scales") -> "TransducerBeam":
    from dualasr_lib.decoding.transducer.beam import TransducerBeam

    return TransducerBeam(given.tables("transducer"), config, _language(given, scales))


def _language(given: Ingredients, scales: "Scales") -> "Language | None":
    """The n-gram with its weight, if there is one."""
    import numpy as np

    from dualasr_lib.decoding.transducer.beams import Language

    lm, scale = given.language.lm, scales.weight("lm")
    if "lexicon" in given.language.params:
        raise ValueError(
            f"method {METHOD.name} takes an n-gram of tokens, but a lexicon is given, too: leave "
            "--lexicon out, or take --method fast-beam or hlg"
        )
    if lm is None:
        return None

    def advance(states: list[int], tokens: list[int]) -> tuple[list[int], list[float]]:
        arcs = lm.advance(np.array(states), np.array(tokens))  # one answer to each question
        return arcs.target.tolist(), arcs.score.tolist()

    return Language(lm.start, advance, lambda states: lm.final(np.array(states)).tolist(), scale)


@dataclass(frozen=True)
class _Batch:
    """A batch that is searched when asked, once for each weight of the language model."""

    heard: "Heard"
    search: "Callable[[Scales], OfflineSearch]"
    found: "dict[Scales, Searched]" = field(default_factory=dict)

    def with_scales(self, scales: "Scales") -> "Searched":
        if scales not in self.found:
            self.found[scales] = self.search(scales)(self.heard)
        return self.found[scales]

    def fallbacks(self) -> int:
        """Of all searches so far."""
        return sum(searched.fallbacks for searched in self.found.values())


@dataclass(frozen=True)
class _Utterance:
    """Candidates of one utterance of a batch."""

    batch: _Batch
    index: int

    def best(self, scales: "Scales") -> "PathLike":
        return self.batch.with_scales(scales).paths[self.index]

    def ranked(self, scales: "Scales") -> "tuple[ScoredText, ...]":
        nbest = self.batch.with_scales(scales).nbest
        return nbest[self.index] if nbest else ()


def tuned_by_searching(search: "Callable[[Scales], OfflineSearch]") -> "Propose":
    """What tuning needs of a search that takes the language model's weight as an option."""
    from dualasr_lib.decoding.rescoring import Proposals

    def propose(heard: "Heard") -> "Proposals":
        batch = _Batch(heard, search)
        return Proposals([_Utterance(batch, i) for i in range(len(heard.lens))], 0, batch.fallbacks)

    return propose


def _whole(config: BeamConfig, given: Ingredients) -> Searcher:
    from dualasr_lib.decoding.rescoring import Scales

    def search(scales: "Scales") -> "OfflineSearch":
        return partial(_all_at_once, _search(config, given, scales), config.skip_blank)

    search(Scales())  # what is wrong with weights or language is said at once
    return Searcher(search, tuned_by_searching(search))


def _all_at_once(search: "TransducerBeam", skip_blank: float, heard: "Heard") -> "Searched":
    from dualasr_lib.decoding.offline import Searched
    from dualasr_lib.decoding.transducer.skipping import searched_frames

    rows, kept = heard.rows("transducer"), searched_frames(heard.each(), skip_blank)
    states = [step.state for step in search.step(rows, [search.open()] * len(rows), kept)]
    return Searched(list(map(search.finish, states)), nbest=list(map(search.ranked, states)))


def _options(options: Sequence[str]) -> type[BeamConfig]:
    return BeamConfig


def _stream(config: BeamConfig, given: Ingredients, scales: "Scales") -> "OnlineSearch":
    from dualasr_lib.decoding.transducer.skipping import hearing

    return hearing(_search(config, given, scales), config.skip_blank)


METHOD = SearchMethod(
    name="transducer-beam",
    summary="beam search of the transducer (and a token n-gram if given); needs no k2",
    heads=("transducer",),
    fitted=with_skipping,
    lm="optional",
    lm_order="lowest",
    grid={"lm": LM_GRID},
    lists_texts=True,
    whole=WholeSearch(options=BeamConfig, build=_whole),
    stream=StreamSearch(options=_options, build=_stream),
)
