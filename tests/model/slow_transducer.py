"""A transducer's loss, slowly: all logits, the forward algorithm in float64, node by node."""

import itertools
import math
from collections.abc import Collection

import torch
from torch import Tensor

__all__ = ["additive_logits", "enumerated", "joint_logits", "slow_total"]

_NEVER = -1e30


def slow_total(
    log_probs: Tensor,
    text: list[int],
    topology: str = "regular",
    delay_penalty: float = 0.0,
    windows: list[Collection[int]] | None = None,
) -> Tensor:
    """Log of the summed probability of all alignments of log_probs (T, U + 1, V); about -1e30 if
    there is none. Only the texts in `windows` of each frame may be used.
    """
    frames = log_probs.shape[0]
    nothing = log_probs.new_full((), _NEVER)

    def inside(t: int, u: int) -> bool:
        return windows is None or u in windows[t]

    def blank(t: int, u: int) -> Tensor:
        return log_probs[t, u, 0] if inside(t, u) else nothing

    def symbol(t: int, u: int) -> Tensor:
        if not inside(t, u):
            return nothing
        score = log_probs[t, u, text[u]] + delay_penalty * ((frames - 1) / 2 - t)
        return score + blank(t, u + 1) if topology == "constrained" else score

    back = 0 if topology == "regular" else 1
    alpha: dict[tuple[int, int], Tensor] = {}
    for t, u in itertools.product(range(frames + 1), range(len(text) + 1)):
        ways = [log_probs.new_zeros(())] if t == u == 0 else []
        if t:
            ways.append(alpha[t - 1, u] + blank(t - 1, u))
        if u and t >= back and t - back < frames:
            ways.append(alpha[t - back, u - 1] + symbol(t - back, u - 1))
        alpha[t, u] = torch.logsumexp(torch.stack(ways or [nothing]), 0)
    return alpha[frames, len(text)]


def enumerated(log_probs: Tensor, text: list[int], topology: str) -> float:
    """The same from its definition: every way to put the tokens on frames."""
    frames, total = log_probs.shape[0], 0.0
    choose = (
        itertools.combinations_with_replacement if topology == "regular" else itertools.combinations
    )
    for places in choose(range(frames), len(text)):
        score, said = 0.0, 0
        for t in range(frames):
            here = places.count(t)
            for _ in range(here):
                score += float(log_probs[t, said, text[said]])
                said += 1
            if topology == "regular" or not here or topology == "constrained":
                score += float(log_probs[t, said, 0])
        total += math.exp(score)
    return math.log(total) if total else -math.inf


def additive_logits(acoustic: Tensor, language: Tensor, share: float) -> Tensor:
    """(T, V), (W, V) -> log-probabilities (T, W, V)."""
    both = (acoustic[:, None] + language[None]).log_softmax(dim=2)
    return (1.0 - share) * both + share * language.log_softmax(dim=1)[None]


def joint_logits(encoder: Tensor, prediction: Tensor, output: tuple[Tensor, Tensor]) -> Tensor:
    """(T, D), (W, D) -> log-probabilities (T, W, V)."""
    hidden = torch.tanh(encoder[:, None] + prediction[None])
    return torch.nn.functional.linear(hidden, *output).log_softmax(dim=2)
