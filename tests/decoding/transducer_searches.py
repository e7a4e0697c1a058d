"""Transducers for the searches' tests, their slow frame-by-frame definition, and random chunks."""

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dualasr_lib.decoding.hypothesis import TokenPath
from dualasr_lib.decoding.transducer.beams import Language
from dualasr_lib.decoding.transducer.options import BeamConfig, OutcomeConfig
from dualasr_lib.model.heads.contract import HeadSizes
from dualasr_lib.model.heads.transducer import TransducerHead, TransducerHeadConfig
from dualasr_lib.model.transducer.settings import TransducerConfig

__all__ = [
    "Case",
    "all_texts",
    "bigram",
    "draw",
    "in_chunks",
    "lm_score",
    "log_probs",
    "slow_beam",
    "slow_greedy",
]


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


Text = tuple[int, ...]


def bigram(vocab_size: int, seed: int, scale: float) -> Language:
    """Random; the state is the last token, 0 at the start."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(vocab_size, vocab_size, generator=generator).double()
    table = table.log_softmax(dim=1)  # column 0: the end
    return Language(
        0, lambda s, t: (t, table[s, t].tolist()), lambda s: table[s, 0].tolist(), scale
    )


def lm_score(lm: Language | None, text: Text) -> float:
    """Without its weight and without the end."""
    if lm is None:
        return 0.0
    before = [lm.start, *text[:-1]][: len(text)]
    return sum(lm.advance(before, list(text))[1])


def all_texts(
    head: TransducerHead, frames: Tensor, config: OutcomeConfig, max_symbols: int
) -> dict[Text, float]:
    """The score of each text there is: every alignment, one after the other."""
    texts: dict[Text, float] = {(): 0.0}
    for frame in frames:
        following: dict[Text, float] = {}
        here = texts
        for count in range(max_symbols):
            more: dict[Text, float] = {}
            for text, score in here.items():
                outcomes = (score + log_probs(head, frame, text, config)).tolist()
                _add(following, text, outcomes[0])
                for token, total in enumerate(outcomes[1:], start=1):
                    _add(following if count + 1 == max_symbols else more, (*text, token), total)
            here = more
        texts = following
    return texts


def slow_beam(
    head: TransducerHead, frames: Tensor, config: BeamConfig, lm: Language | None
) -> list[tuple[Text, float]]:
    """The search by its definition, hypothesis by hypothesis; the end of a text not counted."""
    kept: list[tuple[Text, float]] = [((), 0.0)]
    scale = 0.0 if lm is None else lm.scale
    for frame in frames:
        done: list[tuple[Text, float]] = []
        here = kept
        for count in range(config.max_symbols):
            spoken = []
            for text, score in here:
                outcomes = (score + log_probs(head, frame, text, config)).tolist()
                done.append((text, outcomes[0]))
                for token, total in enumerate(outcomes[1:], start=1):
                    longer = (*text, token)
                    more = scale * (lm_score(lm, longer) - lm_score(lm, text))
                    spoken.append((longer, total + more))
            spoken = sorted(spoken, key=lambda item: -item[1])[: 2 * config.beam]
            if count + 1 == config.max_symbols:
                done += spoken
            here = _near(spoken, config)
            floor = max(score for _, score in done) - config.score_beam
            here = [item for item in here if item[1] >= floor]
        added: dict[Text, float] = {}
        for text, score in done:
            _add(added, text, score)
        best = sorted(added.items(), key=lambda item: -item[1])
        if config.recombine == "context":
            futures: dict[Text, tuple[Text, float]] = {}
            for item in best:
                last = (0, 0, *item[0])[-2:]  # also the state of a bigram
                futures.setdefault(last, item)
            best = list(futures.values())
        kept = _near(best, config)
    return kept


def _near(items: list[tuple[Text, float]], config: BeamConfig) -> list[tuple[Text, float]]:
    """The best ones, within the beam; `items` are sorted."""
    return [item for item in items[: config.beam] if item[1] >= items[0][1] - config.score_beam]


def _add(scores: dict[Text, float], text: Text, score: float) -> None:
    before = torch.tensor(scores.get(text, -torch.inf), dtype=torch.float64)
    scores[text] = float(torch.logaddexp(before, torch.tensor(score, dtype=torch.float64)))
