"""The transducer loss by k2: its recursion as a part of ours, and its whole way beside ours.

`k2_recursion` sums over alignments in C++ and has the interface of the model's own recursion; a
caller hands it over, since the model does not know k2. `k2_pruned_losses` is the published way from
logits to losses, with guards for what k2 cannot take: texts that are all empty, fewer frames than
tokens in the batch, padding that is not finite, utterances without a path. It needs tensors of
N U T V (in the backward pass of k2 1.23.4) and N T R V numbers; ours does not.

N utterances, T frames, U tokens, W = U + 1, R texts per frame, V vocabulary (blank 0).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dualasr_lib.lattice.backend import k2

__all__ = ["K2Losses", "K2Text", "K2TransducerOptions", "k2_pruned_losses", "k2_recursion"]


def k2_recursion(
    symbol: Tensor, blank: Tensor, lens: Tensor, token_lens: Tensor, moves_on: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probability of all alignments, and how often they pass each arc.

    Args:
        symbol: (N, T, U) log-probabilities; blank: (N, T, W). Both finite, very low where there is
            no arc.
        lens: (N,) frames; token_lens: (N,) tokens.
        moves_on: whether a symbol takes its frame with it.

    Returns:
        (N,) totals, very low where there is no alignment; occupancies (N, T, U) and (N, T, W),
        which are the totals' gradient and have none themselves.
    """
    frames, tokens = symbol.shape[1:]
    more_tokens = max(0, 1 - tokens)
    more_frames = max(0, tokens + more_tokens - frames)
    # (N, T, U) -> (N, U, T), on k2's side also (N, U, T + 1)
    ahead = more_frames + (0 if moves_on else 1)
    px = F.pad(symbol.transpose(1, 2), (0, ahead, 0, more_tokens), value=_NEVER)
    py = F.pad(blank.transpose(1, 2), (0, more_frames, 0, more_tokens), value=_NEVER)
    px, py, boundary = px.contiguous(), py.contiguous(), _boundary(lens, token_lens, px.device)
    with torch.no_grad():  # k2 would complain about gradients of what has no path
        lost = k2.mutual_information_recursion(px, py, boundary) < _NEVER / 1e10
    total, (symbols, blanks) = k2.mutual_information_recursion(
        px, py, boundary.masked_fill(lost[:, None], 0), return_grad=True
    )
    return (
        total.masked_fill(lost, _NEVER),
        symbols[:, :tokens, :frames].transpose(1, 2).detach(),
        blanks[:, : tokens + 1, :frames].transpose(1, 2).detach(),
    )


class K2Text(NamedTuple):
    """What is to be said, and how much of each utterance is valid."""

    tokens: Tensor
    """(N, U), padded with anything."""
    lens: Tensor
    """(N,) frames."""
    token_lens: Tensor
    """(N,) tokens."""


class K2TransducerOptions(NamedTuple):
    """As k2 names them."""

    prune_range: int = 5
    rnnt_type: Literal["regular", "modified", "constrained"] = "regular"
    lm_only_scale: float = 0.25
    delay_penalty: float = 0.0


class K2Losses(NamedTuple):
    """Negative log-likelihoods, float32; 0, without gradient, where `impossible`."""

    simple: Tensor
    """(N,)."""
    pruned: Tensor
    """(N,)."""
    impossible: Tensor
    """(N,) bool: k2 says infinite."""
    ranges: Tensor
    """(N, T, R) numbers of tokens said before, as given to `join`."""


def k2_pruned_losses(
    acoustic: Tensor,
    language: Tensor,
    join: Callable[[Tensor], Tensor],
    text: K2Text,
    options: K2TransducerOptions,
) -> K2Losses:
    """Both losses of a pruned transducer.

    Args:
        acoustic: (N, T, V) logits by frame of the simple joiner; language: (N, W, V) by text.
        join: ranges (N, T, R) -> logits (N, T, R, V) of the real joiner. What it reads of padding
            must not be NaN, which would reach its weights' gradient.
    """
    frames = acoustic.shape[1]
    said = torch.arange(language.shape[1], device=acoustic.device)[None, :]
    time = torch.arange(frames, device=acoustic.device)[None, :]
    heard = time < text.lens[:, None]
    tokens = text.tokens.masked_fill(said[:, :-1] >= text.token_lens[:, None], 0)
    more_tokens = max(0, 1 - tokens.shape[1])
    tokens = F.pad(tokens, (0, more_tokens))
    more_frames = max(0, tokens.shape[1] - frames)
    am = acoustic.float().masked_fill(~heard[:, :, None], 0.0)
    lm = language.float().masked_fill((said > text.token_lens[:, None])[:, :, None], 0.0)
    boundary = _boundary(text.lens, text.token_lens, am.device)
    common = {
        "termination_symbol": 0,
        "boundary": boundary,
        "rnnt_type": options.rnnt_type,
        "delay_penalty": options.delay_penalty,
        "reduction": "none",
    }
    simple, grads = k2.rnnt_loss_smoothed(
        lm=F.pad(lm, (0, 0, 0, more_tokens)),
        am=F.pad(am, (0, 0, 0, more_frames)),
        symbols=tokens,
        lm_only_scale=options.lm_only_scale,
        am_only_scale=0.0,
        return_grad=True,
        **common,
    )
    ranges = k2.get_rnnt_prune_ranges(*grads, boundary, options.prune_range)
    inside = ranges[:, :frames].clamp(max=language.shape[1] - 1)
    logits = join(inside).float().masked_fill(~heard[:, :, None, None], 0.0)
    pruned = k2.rnnt_loss_pruned(
        logits=F.pad(logits, (0, 0, 0, 0, 0, more_frames)), symbols=tokens, ranges=ranges, **common
    )
    impossible = simple.isposinf() | pruned.isposinf()
    return K2Losses(
        torch.where(impossible, torch.zeros_like(simple), simple),
        torch.where(impossible, torch.zeros_like(pruned), pruned),
        impossible,
        inside,
    )


_NEVER = -1e30  # low enough for "no arc", and finite


def _boundary(lens: Tensor, token_lens: Tensor, device: torch.device) -> Tensor:
    """(N, 4) int64: k2's begin and end of texts and frames."""
    begin = torch.zeros_like(lens)
    return torch.stack([begin, begin, token_lens, lens], dim=1).to(device, torch.int64)
