"""What each offline method proposes for an utterance, from lattices, language models and attention
decoders (see `decoding.rescoring`). Names and options are in `searches`.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from dualasr_lib.decoding.hypothesis import PathLike, ScoredText, TokenPath
from dualasr_lib.decoding.offline import Detokenise, Heard
from dualasr_lib.decoding.rescoring import Align, NbestCandidates, Proposals, Propose, Scales
from dualasr_lib.lattice.graph_search import GraphConfig, GraphSearch
from dualasr_lib.lattice.lm import LanguageModel, text_score
from dualasr_lib.lattice.lm_lattice import LmLattice, LmLatticeConfig, lm_lattices
from dualasr_lib.lattice.nbest import CtcText, NbestConfig, align, nbest
from dualasr_lib.metrics.alignment import distance
from dualasr_lib.metrics.cer import characters

__all__ = ["propose_graph", "propose_lattice", "propose_nbest", "propose_oracle"]

_NOTHING = TokenPath((), (), 0.0)


def propose_nbest(
    config: NbestConfig, lm: LanguageModel | None = None, attention: bool = False
) -> Propose:
    """n-best lists with CTC scores; with those of `lm` if given, and of the attention decoder."""

    def propose(heard: Heard) -> Proposals:
        found = nbest(heard.log_probs, heard.lens, config)
        lists = [[_with_lm(text, lm) for text in texts] for texts in found.results]
        if attention:
            scores = heard.scorer("attention")([[t.tokens for t in texts] for texts in lists])
            lists = [
                [text.scored("attention", score) for text, score in zip(texts, row)]
                for texts, row in zip(lists, scores)
            ]
        candidates = [
            NbestCandidates(texts, _aligner(rows[:size]))
            for texts, rows, size in zip(lists, heard.log_probs, heard.lens.tolist())
        ]
        return Proposals(candidates, found.fallbacks)

    return propose


def propose_oracle(config: NbestConfig, detokenise: Detokenise) -> Propose:
    """Of an n-best list the text with the fewest errors; the most probable of equals."""

    def propose(heard: Heard) -> Proposals:
        found = nbest(heard.log_probs, heard.lens, config)
        candidates = []
        for texts, ref, rows, size in zip(
            found.results, heard.texts, heard.log_probs, heard.lens.tolist()
        ):
            wanted = characters(ref)
            best = min(texts, key=lambda t: distance(wanted, characters(detokenise(t.tokens))))
            candidates.append(NbestCandidates([_with_lm(best, None)], _aligner(rows[:size])))
        return Proposals(candidates, found.fallbacks)

    return propose


def propose_graph(config: GraphConfig, lm: LanguageModel) -> Propose:
    """Beam search with `lm`, anew for each scale."""

    def propose(heard: Heard) -> Proposals:
        rows = zip(heard.log_probs, heard.lens.tolist())
        return Proposals([_Graph(config, lm, row[:size]) for row, size in rows], 0)

    return propose


def propose_lattice(config: LmLatticeConfig, lm: LanguageModel) -> Propose:
    """Lattices with the scores of `lm` on every path."""

    def propose(heard: Heard) -> Proposals:
        found = lm_lattices(heard.log_probs, heard.lens, config, lm)
        return Proposals([_Lattice(lattice) for lattice in found.results], found.fallbacks)

    return propose


@dataclass(frozen=True)
class _Graph:
    """Candidates that are searched for when asked."""

    config: GraphConfig
    lm: LanguageModel
    log_probs: Tensor

    def best(self, scales: Scales) -> PathLike:
        config = replace(self.config, lm_scale=scales.weight("lm"))
        return GraphSearch(self.lm, config).whole(self.log_probs)

    def ranked(self, scales: Scales) -> tuple[ScoredText, ...]:
        return ()


@dataclass(frozen=True)
class _Lattice:
    """Candidates that stand in a lattice; None for an utterance without frames."""

    lattice: LmLattice | None

    def best(self, scales: Scales) -> PathLike:
        return _NOTHING if self.lattice is None else self.lattice.best(scales.weight("lm"))

    def ranked(self, scales: Scales) -> tuple[ScoredText, ...]:
        return ()


def _with_lm(text: CtcText, lm: LanguageModel | None) -> ScoredText:
    scored = ScoredText(text.tokens, {"ctc": text.ctc})
    return scored if lm is None else scored.scored("lm", text_score(lm, text.tokens))


def _aligner(log_probs: Tensor) -> Align:
    def frames(tokens: tuple[int, ...]) -> tuple[int, ...]:
        return align(log_probs, tokens).frames if tokens else ()

    return frames
