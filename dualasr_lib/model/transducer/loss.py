"""The pruned transducer loss (arXiv 2206.13236) of one or more branches of one batch.

A cheap joiner is trained on all cells of the lattice (`simple`); its occupancies say which R texts
per frame are worth the real joiner, which is trained on those (`pruned`: never less than the loss
over all cells, as paths outside of the windows are left out). Branches hear the same texts, so
that all of them go through one recursion.

N utterances, T frames, U tokens, W = U + 1 texts begun, R of them per frame, V vocabulary (blank
0), D channels of the joiner, M cells.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dualasr_lib.model.pairing import valid_frames
from dualasr_lib.model.transducer.additive import Affine, Text, additive_arcs
from dualasr_lib.model.transducer.joint import Cells, Outcomes, joint_outcomes
from dualasr_lib.model.transducer.pruning import (
    from_windows,
    in_windows,
    prune_starts,
    window_texts,
)
from dualasr_lib.model.transducer.recursion import (
    Arcs,
    Recursion,
    Summed,
    Topology,
    sum_alignments,
    with_delay_penalty,
    with_fast_emit,
)
from dualasr_lib.model.transducer.settings import TransducerLossConfig

__all__ = [
    "AS_IT_COMES",
    "Alignment",
    "Early",
    "TransducerLosses",
    "View",
    "cells_of",
    "has_no_path",
    "joined",
    "transducer_losses",
]


class Early(NamedTuple):
    """What makes a branch emit its tokens earlier."""

    delay_penalty: float = 0.0
    """Nats per token and frame."""
    fast_emit: float = 0.0
    """Share by which the gradient of symbols grows."""


AS_IT_COMES = Early()
"""Nothing of that."""


class View(NamedTuple):
    """What the transducer of one branch makes of a batch."""

    acoustic: Affine
    """Of the cheap joiner, by frame: x (N, T, C)."""
    language: Affine
    """Of the cheap joiner, by text: x (N, W, P)."""
    encoder: Tensor
    """(N, T, D) of the real joiner."""
    prediction: Tensor
    """(N, W, D) of the real joiner."""
    output: tuple[Tensor, Tensor]
    """Weight (V, D) and bias (V,) of the real joiner."""
    early: Early = AS_IT_COMES


class Alignment(NamedTuple):
    """Where the tokens are, by the real joiner; no gradient; 0 where there is no path."""

    texts: Tensor
    """(N, T, R) number of tokens said before, of each cell of the window; may lie behind the end,
    where all occupancies are 0."""
    symbol: Tensor
    """(N, T, R) float64 probability that the text's next token is said in this cell."""
    blank: Tensor
    """(N, T, R) float64 probability of a blank in this cell."""


class TransducerLosses(NamedTuple):
    """Of one branch."""

    simple: Tensor
    """(N,) float64 negative log-likelihoods by the cheap joiner, nats; 0, without gradient, where
    `impossible`. With a delay penalty it is no likelihood and may be negative."""
    pruned: Tensor
    """(N,) the same by the real joiner."""
    impossible: Tensor
    """(N,) bool: no path through the windows; `has_no_path` says when."""
    alignment: Alignment


def transducer_losses(
    views: Sequence[View],
    text: Text,
    config: TransducerLossConfig,
    recursion: Recursion | None = None,
) -> list[TransducerLosses]:
    """The losses of each of `views`, all of which have heard the same.

    What lies behind an utterance's end reaches neither a value nor a gradient, not even NaN; the
    batch that an utterance is in changes nothing.

    Args:
        recursion: who sums; None: `own_recursion`. `config.implementation` is for whoever picks it.
    """
    simple = _summed([_simple_arcs(view, text, config) for view in views], text, config, recursion)
    width = min(config.prune_range, text.tokens.shape[1] + 1)
    windows = [
        window_texts(
            prune_starts(
                Arcs(one.symbol, one.blank), text.lens, text.token_lens, width, config.moves_on
            ),
            width,
        )
        for one in simple
    ]
    pruned = _summed(
        [_pruned_arcs(view, text, texts, config) for view, texts in zip(views, windows)],
        text,
        config,
        recursion,
    )
    return [_losses(*parts) for parts in zip(simple, pruned, windows)]


def has_no_path(lens: Tensor, token_lens: Tensor, topology: Topology, prune_range: int) -> Tensor:
    """(N,) bool: the text does not fit into the frames. A window of R rises by R - 1 texts per
    frame at most; a symbol that moves on takes a frame of its own.
    """
    per_frame = prune_range - 1 if topology == "regular" else 1
    return token_lens > per_frame * lens


def cells_of(text: Text, texts: Tensor) -> tuple[Tensor, Cells]:
    """The cells of windows (N, T, R) that lie within frames and text: their (M,) places among all,
    rising, and what the joiner is asked there.
    """
    valid = valid_frames(text.lens, texts.shape[1])[:, :, None] & (
        texts <= text.token_lens[:, None, None]
    )
    places = valid.flatten().nonzero()[:, 0]
    frames = places // texts.shape[2]
    owners = frames // max(1, texts.shape[1])
    said = texts.flatten()[places]
    going_on = said < text.token_lens[owners]
    rows = owners * text.tokens.shape[1] + said
    tokens = torch.zeros_like(said)
    tokens[going_on] = text.tokens.flatten()[rows[going_on]]
    return places, Cells(frames, owners * (text.tokens.shape[1] + 1) + said, tokens, owners)


def joined(view: View, cells: Cells, min_gradient: float) -> Outcomes:
    """What the real joiner of a branch says in some cells."""
    return joint_outcomes(
        view.encoder.flatten(0, 1),
        view.prediction.flatten(0, 1),
        view.output,
        cells,
        min_gradient,
    )


def _simple_arcs(view: View, text: Text, config: TransducerLossConfig) -> Arcs:
    arcs = additive_arcs(view.acoustic, view.language, text, config.language_share)
    return _earlier(arcs, text, view.early)


def _pruned_arcs(view: View, text: Text, texts: Tensor, config: TransducerLossConfig) -> Arcs:
    """The real joiner in the windows (N, T, R); `NEVER` outside of them."""
    shape, num_texts = texts.shape, text.tokens.shape[1] + 1
    places, cells = cells_of(text, texts)
    outcomes = joined(view, cells, config.min_gradient)
    scores = [
        from_windows(
            scores.new_zeros(texts.numel()).index_copy(0, places, scores).view(shape),
            texts,
            num_texts,
        )
        for scores in outcomes
    ]
    return _earlier(Arcs(scores[0][:, :, :-1], scores[1]), text, view.early)


def _earlier(arcs: Arcs, text: Text, early: Early) -> Arcs:
    faster = with_fast_emit(arcs, early.fast_emit)
    return with_delay_penalty(faster, text.lens, early.delay_penalty)


def _summed(
    arcs: Sequence[Arcs], text: Text, config: TransducerLossConfig, recursion: Recursion | None
) -> list[Summed]:
    """The branches one below the other, (B N, T, W), through one recursion."""
    together = Arcs(*(torch.cat([x.double() for x in part]) for part in zip(*arcs)))
    lens, token_lens = (x.repeat(len(arcs)) for x in (text.lens, text.token_lens))
    summed = sum_alignments(together, lens, token_lens, config.topology, recursion)
    return [Summed(*parts) for parts in zip(*(x.chunk(len(arcs)) for x in summed))]


def _losses(simple: Summed, pruned: Summed, texts: Tensor) -> TransducerLosses:
    impossible = simple.impossible | pruned.impossible
    lost = impossible[:, None, None]
    whole = (F.pad(pruned.symbol, (0, 1)), pruned.blank)
    inside = [in_windows(x, texts).masked_fill(lost, 0.0) for x in whole]
    return TransducerLosses(
        simple=-simple.total.masked_fill(impossible, 0.0),
        pruned=-pruned.total.masked_fill(impossible, 0.0),
        impossible=impossible,
        alignment=Alignment(texts, *inside),
    )
