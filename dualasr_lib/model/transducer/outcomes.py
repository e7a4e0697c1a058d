"""What two transducers say of the same cells, for distillation of outputs (after arXiv 2011.06110).

Branches hear a token at different times and have windows of their own, so that both are asked in
common ones: the windows with the most of both alignments. In each cell three outcomes are told
apart: the text's next token, blank, and all else.

N utterances, T frames, U tokens, W = U + 1 texts begun, R of them per frame, M cells.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dualasr_lib.model.transducer.additive import Text
from dualasr_lib.model.transducer.loss import TransducerLosses, View, cells_of, joined
from dualasr_lib.model.transducer.pruning import prune_starts, window_texts
from dualasr_lib.model.transducer.recursion import NEVER, Arcs
from dualasr_lib.model.transducer.settings import TransducerLossConfig

__all__ = ["ThreeWay", "common_windows", "three_way"]

_LEAST = 1e-7
"""Probability that all else has at least: float32 cannot tell smaller ones from 0."""


class ThreeWay(NamedTuple):
    """The cells of each utterance, frame by frame, one after the other."""

    log_probs: Tensor
    """(N, M, 3) natural log-probabilities of the next token (none where the text ends), of blank,
    and of all else; padded with 0."""
    lens: Tensor
    """(N,) cells of each; 0 where there is no path."""


def common_windows(
    losses: Sequence[TransducerLosses], text: Text, config: TransducerLossConfig
) -> Tensor:
    """(N, T, R) texts of windows, lawful like those of each branch, by all alignments together."""
    num_texts = text.tokens.shape[1] + 1
    symbol, blank = (
        torch.stack([_everywhere(x, a.texts, num_texts) for a, x in parts]).sum(dim=0)
        for parts in zip(
            *(((a, a.symbol), (a, a.blank)) for a in (one.alignment for one in losses))
        )
    )
    width = min(config.prune_range, num_texts)
    arcs = Arcs(symbol[:, :, :-1], blank)
    starts = prune_starts(arcs, text.lens, text.token_lens, width, config.moves_on)
    return window_texts(starts, width)


def three_way(
    view: View, text: Text, texts: Tensor, impossible: Tensor, config: TransducerLossConfig
) -> ThreeWay:
    """What the joiner of a branch says in the windows `texts` (N, T, R); float32 inside autocast.

    Args:
        impossible: (N,) utterances that are left out.
    """
    _, cells = cells_of(text, texts)
    batch, num_texts = text.tokens.shape[0], text.tokens.shape[1] + 1
    said = joined(view, cells, config.min_gradient)
    ended = cells.texts - cells.owners * num_texts == text.token_lens[cells.owners]
    symbol = said.symbol.masked_fill(ended, NEVER)
    rest = (1.0 - symbol.exp() - said.blank.exp()).clamp(min=_LEAST).log()
    counts = torch.bincount(cells.owners, minlength=batch)
    first = counts.cumsum(0) - counts
    place = torch.arange(len(cells.owners), device=counts.device) - first[cells.owners]
    packed = rest.new_zeros(batch, int(counts.max()) if batch else 0, 3)
    rows = torch.stack([symbol, said.blank, rest], dim=1)
    return ThreeWay(
        packed.index_put((cells.owners, place), rows), counts.masked_fill(impossible, 0)
    )


def _everywhere(values: Tensor, texts: Tensor, num_texts: int) -> Tensor:
    """(N, T, R) in the windows -> (N, T, W), 0 outside of them."""
    return values.new_zeros(*values.shape[:2], num_texts).scatter(2, texts, values)
