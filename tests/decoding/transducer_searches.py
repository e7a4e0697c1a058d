"""Transducers for the searches' tests, their slow frame-by-frame definition, and random chunks."""

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dualasr_lib.decoding.hypothesis import TokenPath
from dualasr_lib.decoding.transducer.options import OutcomeConfig
from dualasr_lib.model.heads.contract import HeadSizes
from dualasr_lib.model.heads.transducer import TransducerHead, TransducerHeadConfig
from dualasr_lib.model.transducer.settings import TransducerConfig

__all__ = ["Case", "draw", "in_chunks", "log_probs", "slow_greedy"]


class Case(NamedTuple):
    """A head with random weights and what it hears of some utterances."""

    head: TransducerHead
    states: list[Tensor]
    """Each (S, C)."""
    frames: list[Tensor]
    """Each (S, D)."""


def draw(
    seed: int, lens: Sequence[int] = (20, 0, 33, 1, 7), vocab_size: int = 7, joiner_dim: int = 16
) -> Case:
    """Outcomes vary from frame to frame and with the context; about half are blanks."""
    generator = torch.Generator().manual_seed(seed)
    sizes = TransducerConfig(dim=8, joiner_dim=joiner_dim)
    head = TransducerHead(TransducerHeadConfig(sizes=sizes), HeadSizes(vocab_size, 6, 1))
    with torch.no_grad():
        for weight in head.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
        head.transducer.joiner.output.bias[0] += 1.5
    states = [torch.randn(size, 6, generator=generator) for size in lens]
    return Case(head, states, [head.frames(h).detach() for h in states])


@torch.no_grad()
def log_probs(
    head: TransducerHead, frame: Tensor, text: Sequence[int], config: OutcomeConfig
) -> Tensor:
    """(V,) of one frame (D,) after a text, by the head's own modules, in float64."""
    network, joiner = head.transducer.prediction, head.transducer.joiner
    context = ([0] * network.context + list(text))[-network.context :]
    logits = joiner(frame, joiner.prediction(network.of_contexts(torch.tensor([context]))))[0]
    logits[0] -= config.blank_penalty
    return (logits.double() / config.temperature).log_softmax(dim=0)


def slow_greedy(
    head: TransducerHead, frames: Tensor, config: OutcomeConfig, max_symbols: int
) -> TokenPath:
    """One outcome after the other."""
    text: list[int] = []
    when: list[int] = []
    score, now, count = 0.0, 0, 0
    while now < len(frames):
        scores = log_probs(head, frames[now], text, config)
        token = int(scores.argmax())
        score += float(scores[token])
        if token:
            text.append(token)
            when.append(now)
            count += 1
        if not token or count == max_symbols:
            now, count = now + 1, 0
    return TokenPath(tuple(text), tuple(when), score)


def in_chunks(
    search: Any,
    streams: Sequence[Tensor],
    seed: int,
    watch: Callable[[int, Any], None] = lambda stream, step: None,
) -> list[Any]:
    """The states of streams that join, wait and leave at random, in chunks of 0 to 8 frames.

    Args:
        watch: told of every step of every stream.
    """
    rng = random.Random(seed)
    states = [search.open() for _ in streams]
    place = [0] * len(streams)
    while any(at < len(rows) for at, rows in zip(place, streams)):
        chosen = [i for i in range(len(streams)) if rng.random() < 0.6]
        new = [streams[i][place[i] : place[i] + rng.randrange(9)] for i in chosen]
        for i, rows, step in zip(chosen, new, search.step(new, [states[i] for i in chosen])):
            states[i] = step.state
            place[i] += len(rows)
            watch(i, step)
    return states
