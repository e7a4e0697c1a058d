"""Scores of given texts by a transducer: the sum over all alignments, many texts at once.

The prediction network is stateless, so that a cell depends on its frame and the last tokens only.
Texts of one utterance share such contexts, and each cell is computed once: 16 texts that differ in
places cost little more than one. A band around the places where a first pass heard its tokens
leaves out cells that no likely alignment uses; then the score is a lower bound.

P texts, N utterances, T frames, U tokens, W = U + 1 texts begun, K tokens of context, X contexts, V
vocabulary (blank 0), D channels of the joiner, M cells.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dualasr_lib.model.pairing import at_least_float32, valid_frames
from dualasr_lib.model.transducer.blocks import blocks, full_precision
from dualasr_lib.model.transducer.network import BLANK, Transducer
from dualasr_lib.model.transducer.recursion import NEVER, Arcs, Topology, sum_alignments

__all__ = ["Band", "Hypotheses", "score_texts"]


class Hypotheses(NamedTuple):
    """Texts of several utterances."""

    tokens: Tensor
    """(P, U) padded with anything."""
    lens: Tensor
    """(P,) tokens, 0 allowed."""
    owner: Tensor
    """(P,) utterance of each, in any order."""


class Band(NamedTuple):
    """Where alignments may run."""

    said: Tensor
    """(N, T) tokens that a first pass had said before each frame's blank, never falling."""
    width: int
    """Tokens by which a text may be ahead of it or behind it; where the two are not of one length,
    the difference is spread evenly over the frames.
    """


@torch.no_grad()
def score_texts(
    transducer: Transducer,
    h: Tensor,
    lens: Tensor,
    texts: Hypotheses,
    topology: Topology = "regular",
    band: Band | None = None,
) -> Tensor:
    """(P,) float32 natural log-probability of each text; minus infinity where it has no alignment
    (inside the band). No gradient.

    Args:
        h: (N, T, C) encoder outputs of lens (N,) frames; padding is never read.
    """
    lens, device = lens.to(h.device), h.device
    if not len(texts.owner):
        return torch.zeros(0, device=device)
    texts = Hypotheses(*(x.to(device) for x in texts))
    inside = _inside(lens, texts, h.shape[1], band)
    table = _Table.of(texts, transducer.config.context)
    cells = _Cells.of(table.blank, inside, h.shape[1])
    with full_precision(h):
        clean = at_least_float32(h).masked_fill(~valid_frames(lens, h.shape[1])[:, :, None], 0.0)
        encoder = transducer.joiner.encoder(clean)
        state = transducer.joiner.prediction(transducer.prediction.of_contexts(table.contexts))
        owner = torch.zeros(len(state), dtype=torch.int64, device=device)
        owner[table.blank] = texts.owner[:, None].expand_as(table.blank)
        hidden = _Hidden(encoder.flatten(0, 1), state, owner)
        symbol, blank = _outcomes(transducer, hidden, cells, table)
    # (P, T, W) cells of each text -> their scores
    place = cells.place.clamp(min=0)
    own_blank = blank[place].masked_fill(~inside, NEVER)
    own_symbol = symbol[place[:, :, :-1], table.slot[:, None]].masked_fill(
        ~inside[:, :, :-1], NEVER
    )
    summed = sum_alignments(Arcs(own_symbol, own_blank), lens[texts.owner], texts.lens, topology)
    return summed.total.masked_fill(summed.impossible, -torch.inf).float()


class _Table(NamedTuple):
    """The contexts of all texts, each once per utterance."""

    contexts: Tensor
    """(X, K) tokens, the latest last."""
    blank: Tensor
    """(P, W) context of each text begun."""
    slot: Tensor
    """(P, U) which of its context's followers the next token is."""
    followers: Tensor
    """(X, F) tokens that follow each context in some text; blank in unused places."""

    @staticmethod
    def of(texts: Hypotheses, context: int) -> "_Table":
        said = valid_frames(texts.lens, texts.tokens.shape[1])
        tokens = texts.tokens.masked_fill(~said, BLANK)
        windows = F.pad(tokens, (context, 0), value=BLANK).unfold(1, context, 1)  # (P, W, K)
        keys = torch.cat([texts.owner[:, None, None].expand_as(windows[:, :, :1]), windows], dim=2)
        found, blank = torch.unique(keys.flatten(0, 1), dim=0, return_inverse=True)
        blank = blank.view(windows.shape[:2])
        pairs = torch.stack([blank[:, :-1].flatten(), tokens.flatten()], dim=1)
        arcs, which = torch.unique(pairs, dim=0, return_inverse=True)  # sorted by context
        counts = torch.bincount(arcs[:, 0], minlength=len(found))
        slots = (
            torch.arange(len(arcs), device=arcs.device) - (counts.cumsum(0) - counts)[arcs[:, 0]]
        )
        width = int(counts.max()) if len(counts) else 0
        followers = tokens.new_full((len(found), max(1, width)), BLANK)
        followers[arcs[:, 0], slots] = arcs[:, 1]
        return _Table(found[:, 1:], blank, slots[which].view(tokens.shape), followers)


class _Cells(NamedTuple):
    """Pairs of a context and a frame that some text needs, each once."""

    contexts: Tensor
    """(M,)."""
    frames: Tensor
    """(M,) number within the utterance."""
    place: Tensor
    """(P, T, W) cell of each place in a text's lattice; -1 outside of the band."""

    @staticmethod
    def of(contexts: Tensor, inside: Tensor, frames: int) -> "_Cells":
        time = torch.arange(frames, device=contexts.device)[None, :, None]
        keys = (contexts[:, None, :] * max(1, frames) + time)[inside]
        found, which = torch.unique(keys, return_inverse=True)
        place = torch.full_like(inside, -1, dtype=torch.int64)
        place[inside] = which
        return _Cells(found // max(1, frames), found % max(1, frames), place)


class _Hidden(NamedTuple):
    encoder: Tensor  # (N T, D)
    states: Tensor  # (X, D)
    owner: Tensor  # (X,) utterance of each context


def _outcomes(
    transducer: Transducer, hidden: _Hidden, cells: _Cells, table: _Table
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of followers (M + 1, F) and of blank (M + 1,); the last is for nobody."""
    output = transducer.joiner.output
    count, frames = len(cells.frames), cells.place.shape[1]
    symbol = hidden.states.new_full((count + 1, table.followers.shape[1]), NEVER)
    blank = hidden.states.new_full((count + 1,), NEVER)
    for block in blocks(count, output.out_features, blank.device):
        context = cells.contexts[block]
        rows = hidden.owner[context] * frames + cells.frames[block]
        logits = output(torch.tanh(hidden.encoder[rows] + hidden.states[context]))
        norm = logits.logsumexp(dim=1)
        blank[block] = logits[:, BLANK] - norm
        symbol[block] = logits.gather(1, table.followers[context]) - norm[:, None]
    return symbol, blank


def _inside(lens: Tensor, texts: Hypotheses, frames: int, band: Band | None) -> Tensor:
    """(P, T, W) places of the lattices that may be used."""
    said = torch.arange(texts.tokens.shape[1] + 1, device=lens.device)[None, None, :]
    own_lens = lens[texts.owner]
    inside = valid_frames(own_lens, frames)[:, :, None] & (said <= texts.lens[:, None, None])
    if band is None or not frames:
        return inside
    heard = band.said.to(lens.device)[texts.owner].double()  # (P, T)
    last = (own_lens - 1).clamp(min=0)[:, None]
    missing = texts.lens[:, None] - heard.gather(1, last)
    time = torch.arange(1, frames + 1, device=lens.device)[None, :]
    centre = heard + missing * time / own_lens.clamp(min=1)[:, None]
    return inside & ((said - centre[:, :, None]).abs() <= band.width + 0.5)
