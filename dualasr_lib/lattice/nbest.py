"""n-best lists: texts drawn from CTC lattices, each once, with its CTC score; and the times of
their tokens.

Paths are drawn with k2's `random_paths` in proportion to their scaled probability (its draws are
the same at every call), the best path is added, and of the paths of one text the best counts. The
score of a text is that of the CTC loss: the sum over *all* its alignments, so two texts are
compared by their probabilities and not by those of single paths.

N utterances, S encoder frames, V tokens (blank 0), P texts of one utterance, A tokens of a text.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dualasr_lib.core.ctc_frames import ctc_frames
from dualasr_lib.core.ctc_scores import ctc_scores
from dualasr_lib.lattice.backend import k2
from dualasr_lib.lattice.best_path import best_paths, emissions
from dualasr_lib.lattice.ctc_lattice import ctc_lattices
from dualasr_lib.lattice.fallback import Found, each_utterance
from dualasr_lib.lattice.narrow import narrow
from dualasr_lib.lattice.options import NbestConfig
from dualasr_lib.lattice.path import Path, SearchConfig
from dualasr_lib.lattice.topology import check_log_probs, dense

__all__ = ["CtcText", "Text", "align", "nbest"]

_CATCH_UP = 2.0, 0.02
"""Nats, and nats per frame, by which a text behind the best path may catch up when its alignments
are summed; measured: some 6 in 750 frames."""

Text = tuple[int, ...]
"""Vocabulary ids, no blanks."""


class CtcText(NamedTuple):
    """A proposed text."""

    tokens: Text
    ctc: float
    """Natural log-probability, summed over all alignments."""


def nbest(log_probs: Tensor, lens: Tensor, config: NbestConfig) -> Found[list[CtcText]]:
    """Texts of each utterance, the most probable first; an utterance without frames has the
    empty one.

    Args:
        log_probs: (N, S, V) natural log; frames from `lens` on may hold anything.
        lens: (N,) valid frames.

    Raises:
        ValueError, MemoryError: as `search.one_best`.
    """
    check_log_probs(log_probs, lens)

    def propose(rows: Tensor, sizes: Tensor, lattice: SearchConfig) -> list[list[CtcText]]:
        lists = _texts(ctc_lattices(rows, sizes, lattice), sizes.tolist(), config)
        return [
            _scored(row[:size], texts, config.text_beam)
            for row, size, texts in zip(rows, sizes.tolist(), lists)
        ]

    found = each_utterance(propose, log_probs, lens, config.lattice)
    empty = [CtcText((), 0.0)]
    return Found([empty if texts is None else texts for texts in found.results], found.fallbacks)


def align(log_probs: Tensor, tokens: Text) -> Path:
    """The most probable alignment of `tokens` to log_probs (S, V), S >= 1."""
    columns, narrowed = narrow([tokens])
    own = log_probs.detach().cpu().float()[None, :, columns[0]]  # (S, V) -> (1, S, A)
    graph = k2.ctc_graph(narrowed, modified=False)
    lattice = k2.intersect_dense(graph, dense(own, torch.tensor([len(log_probs)])), 10.0)
    best = k2.shortest_path(lattice, use_double_scores=True)[0]
    if not best.num_arcs:
        raise ValueError(
            f"a text of {len(tokens)} tokens needs {ctc_frames(tokens)} frames for an alignment, "
            f"but there are {len(log_probs)}"
        )
    frames = tuple(frame for frame, _ in emissions(best.aux_labels.tolist()))
    return Path(tokens, frames, float(best.scores.double().sum()))


def _texts(lattice: Any, num_frames: Sequence[int], config: NbestConfig) -> list[list[Text]]:
    """Distinct texts of each of N lattices, those with the best paths first."""
    drawn: list[list[_Drawn]] = [[] for _ in num_frames]
    for scale in config.path_scales:
        for texts, more in zip(drawn, _draw(lattice, scale, config.num_paths)):
            texts += more
    lists = []
    for (best, _), texts, size in zip(best_paths(lattice), drawn, num_frames):
        likeliest = sorted(texts, key=lambda item: -item.score)
        if likeliest:  # a path much worse than the best has a text that is too far behind
            catch_up = _CATCH_UP[0] + _CATCH_UP[1] * size
            floor = likeliest[0].score - config.text_beam - catch_up
            likeliest = [item for item in likeliest if item.score >= floor]
        distinct = dict.fromkeys([best.tokens, *(item.tokens for item in likeliest)])
        lists.append(list(distinct)[: config.num_texts])
    return lists


class _Drawn(NamedTuple):
    tokens: Text
    score: float  # of the path


def _draw(lattice: Any, scale: float, num_paths: int) -> list[list[_Drawn]]:
    """Paths of each lattice, drawn in proportion to probability ** scale."""
    flat = lattice.clone()
    flat.scores = flat.scores * scale
    paths = k2.random_paths(flat, use_double_scores=True, num_paths=num_paths)
    # (N, paths, arcs) -> (N, paths, tokens), and (N paths,) the score of each
    texts = k2.ragged.index(lattice.aux_labels.contiguous(), paths).remove_values_leq(0).tolist()
    scores = iter(k2.ragged.index(lattice.scores.detach().contiguous(), paths).sum().tolist())
    return [[_Drawn(tuple(text), next(scores)) for text in own] for own in texts]


def _scored(log_probs: Tensor, texts: Sequence[Text], beam: float) -> list[CtcText]:
    scored = [CtcText(*item) for item in zip(texts, ctc_scores(log_probs, texts))]
    best = max(item.ctc for item in scored)
    return sorted((t for t in scored if t.ctc >= best - beam), key=lambda item: -item.ctc)
