"""The sum over all alignments of a transducer, and how often it passes each arc.

An utterance of T frames and U tokens has nodes (t, u), "t frames are done and u tokens are said".
From (t, u) with t < T

    blank    leads to (t + 1, u)
    symbol   says token u and leads to (t, u + 1)        regular: any number of tokens on a frame
                                    or (t + 1, u + 1)    modified, constrained: at most one

and the sum goes from (0, 0) to (T, U). `constrained` adds the blank after the new token, on the
same frame, to each symbol. A regular transducer needs a frame if there is a token; the other two
need as many frames as tokens.

Everything is in float64: the tensors are small, and a minute of speech adds up to thousands of
nats. What lies behind an utterance's end is never read. Where arcs are missing their score is
`NEVER`, which is finite: infinities would make gradients NaN. There are no second derivatives.

N utterances, T frames, U tokens, W = U + 1 texts begun, D steps of the recursion.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "NEVER",
    "Arcs",
    "Recursion",
    "Summed",
    "Topology",
    "own_recursion",
    "sum_alignments",
    "with_delay_penalty",
    "with_fast_emit",
]

NEVER = -1e30
"""Log-probability of an arc that does not exist."""
_IMPOSSIBLE = -1e20  # whatever is less has passed an arc that does not exist

Topology = Literal["regular", "modified", "constrained"]

Recursion = Callable[[Tensor, Tensor, Tensor, Tensor, bool], tuple[Tensor, Tensor, Tensor]]
"""(symbol (N, T, U), blank (N, T, W), lens (N,), token_lens (N,), symbol moves on to the next
frame) -> total (N,), occupancies of symbols (N, T, U) and of blanks (N, T, W).

Arcs behind an utterance's end come as `NEVER`, all float64. Only the total has a gradient, and the
occupancies are that gradient.
"""


class Arcs(NamedTuple):
    """Natural log-probabilities of all arcs, by the node that they leave."""

    symbol: Tensor
    """(N, T, U)."""
    blank: Tensor
    """(N, T, U + 1)."""


class Summed(NamedTuple):
    """The sum over the alignments of each utterance."""

    total: Tensor
    """(N,) float64 natural log; 0, without gradient, where `impossible`; 0 where there is neither
    a frame nor a token."""
    impossible: Tensor
    """(N,) bool: there is no alignment."""
    symbol: Tensor
    """(N, T, U) float64 probability that token u is said on frame t; no gradient."""
    blank: Tensor
    """(N, T, U + 1) float64 probability of each blank; no gradient."""


def sum_alignments(
    arcs: Arcs,
    lens: Tensor,
    token_lens: Tensor,
    topology: Topology = "regular",
    recursion: Recursion | None = None,
) -> Summed:
    """Sums over the alignments of each utterance by `recursion` (None: `own_recursion`).

    Args:
        arcs: padded with anything.
        lens: (N,) frames; token_lens: (N,) tokens, both 0 or more.
    """
    frames, texts = arcs.blank.shape[1:]
    heard = torch.arange(frames, device=lens.device)[None, :, None] < lens[:, None, None]
    said = torch.arange(texts, device=lens.device)[None, None, :]
    blank = _masked(arcs.blank, heard & (said <= token_lens[:, None, None]))
    symbol = _masked(arcs.symbol, heard & (said < token_lens[:, None, None])[:, :, :-1])
    if topology == "constrained":
        symbol = (symbol + blank[:, :, 1:]).clamp(min=NEVER)
    moves_on = topology != "regular"
    total, symbols, blanks = (recursion or own_recursion)(symbol, blank, lens, token_lens, moves_on)
    impossible = total.detach() < _IMPOSSIBLE
    lost = impossible[:, None, None]
    return Summed(
        total.masked_fill(impossible, 0.0),
        impossible,
        symbols.masked_fill(lost, 0.0),
        blanks.masked_fill(lost, 0.0),
    )


def with_delay_penalty(arcs: Arcs, lens: Tensor, penalty: float) -> Arcs:
    """Adds `penalty` nats times ((T_n - 1) / 2 - t) to a symbol on frame t, so that early
    alignments weigh more (arXiv 2211.00490, as k2 defines it); the sum is no likelihood then.
    """
    if not penalty:
        return arcs
    frames = torch.arange(arcs.symbol.shape[1], device=lens.device, dtype=torch.float64)
    bonus = penalty * ((lens[:, None] - 1) / 2.0 - frames[None, :])
    return arcs._replace(symbol=arcs.symbol.double() + bonus[:, :, None])


def with_fast_emit(arcs: Arcs, share: float) -> Arcs:
    """The same scores; the gradient of symbols is 1 + `share` times as large (FastEmit, arXiv
    2010.11148).
    """
    if not share:
        return arcs
    return arcs._replace(symbol=arcs.symbol + share * (arcs.symbol - arcs.symbol.detach()))


def own_recursion(
    symbol: Tensor, blank: Tensor, lens: Tensor, token_lens: Tensor, moves_on: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The `Recursion` of this package: one step per anti-diagonal t + u, or per frame where a
    symbol moves on.
    """
    return _Sum.apply(  # type: ignore[no-any-return,unused-ignore]
        symbol, blank, lens, token_lens, moves_on
    )


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, symbol: Tensor, blank: Tensor, lens: Tensor, token_lens: Tensor, moves_on: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        frames = blank.shape[1]
        # (N, T, W) -> (D, N, W), by the node that is left
        by_blank = _steps(blank, moves_on)
        by_symbol = _steps(F.pad(symbol, (0, 1), value=NEVER), moves_on)
        by_symbol = F.pad(by_symbol[:, :, :-1], (1, 0), value=NEVER)  # by the text that is reached
        last = (lens if moves_on else lens + token_lens, token_lens)
        total = _accumulate(by_symbol, by_blank, last)
        symbols, blanks = _occupancies(by_symbol, by_blank, last)
        symbols = _frames(symbols[:, :, :-1], frames, moves_on)
        blanks = _frames(blanks, frames, moves_on)
        ctx.save_for_backward(symbols, blanks)
        ctx.mark_non_differentiable(symbols, blanks)
        return total, symbols, blanks

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        symbols, blanks = ctx.saved_tensors
        scale = grads[0][:, None, None]
        return scale * symbols, scale * blanks, None, None, None


def _accumulate(by_symbol: Tensor, by_blank: Tensor, last: tuple[Tensor, Tensor]) -> Tensor:
    """(N,) sums up to the node `last` = (step, text); the scores (D, N, W) of arcs become, in
    place, those of all paths that end with the arc.
    """
    steps, batch, texts = by_blank.shape
    nodes = by_blank.new_full((steps + 1, batch, texts + 1), NEVER)  # one text too many in front
    nodes[0, :, 1] = 0.0
    same, before = nodes[:, :, 1:].unbind(0), nodes[:, :, :-1].unbind(0)
    for step, (symbol, blank) in enumerate(zip(by_symbol.unbind(0), by_blank.unbind(0))):
        symbol.add_(before[step])
        blank.add_(same[step])
        torch.logaddexp(symbol, blank, out=same[step + 1])
    return nodes[last[0], torch.arange(batch, device=nodes.device), last[1] + 1]


def _occupancies(
    by_symbol: Tensor, by_blank: Tensor, last: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Probability of each arc (D, N, W), by the node that it leaves, from what `_accumulate` left.

    A node hands its probability back to the two arcs that reach it, in their shares.
    """
    steps, batch, texts = by_blank.shape
    symbol_share = torch.sigmoid(by_symbol - by_blank)
    blank_share = 1.0 - symbol_share
    nodes = by_blank.new_zeros(steps + 1, batch, texts)
    nodes[last[0], torch.arange(batch, device=nodes.device), last[1]] = 1.0
    same, before, after = (x.unbind(0) for x in (nodes, nodes[:, :, :-1], nodes[:, :, 1:]))
    blank_shares, symbol_shares = blank_share.unbind(0), symbol_share[:, :, 1:].unbind(0)
    for step in range(steps - 1, -1, -1):
        same[step].addcmul_(same[step + 1], blank_shares[step])
        before[step].addcmul_(after[step + 1], symbol_shares[step])
    return F.pad((symbol_share * nodes[1:])[:, :, 1:], (0, 1)), blank_share * nodes[1:]


def _steps(arcs: Tensor, moves_on: bool) -> Tensor:
    """(N, T, W) -> (D, N, W), a copy: step t, or, where a symbol stays on its frame, t + u.

    With a row of T + W per text, laid end to end, (u, t) is number u (T + W) + t. Read with rows
    one shorter it stands in row u, column t + u.
    """
    if moves_on:
        return arcs.transpose(0, 1).contiguous()
    batch, frames, texts = arcs.shape
    steps = frames + texts - 1
    rows = F.pad(arcs.transpose(1, 2), (0, texts), value=NEVER)  # (N, W, T + W)
    skewed = rows.flatten(1)[:, : texts * steps].view(batch, texts, steps)
    return skewed.permute(2, 0, 1).contiguous()


def _frames(arcs: Tensor, frames: int, moves_on: bool) -> Tensor:
    """The way back: (D, N, W') -> (N, T, W')."""
    if moves_on:
        return arcs.transpose(0, 1).contiguous()
    steps, batch, texts = arcs.shape
    rows = F.pad(arcs.permute(1, 2, 0).flatten(1), (0, texts))
    return rows.view(batch, texts, steps + 1)[:, :, :frames].transpose(1, 2).contiguous()


def _masked(scores: Tensor, valid: Tensor) -> Tensor:
    """float64, and `NEVER` where not valid or not finite from below; NaN of valid ones stays."""
    return scores.double().masked_fill(~valid, NEVER).clamp(min=NEVER)
