"""Searches of a transducer on made-up frames: greedy, beam, k2's; batches, one, streams.

The joiner's weights are random. A frame is made of the output row of what it should say; those of
tokens are mixed with a rival's, so that outcomes are sure at most frames and doubtful at some.
Times are CPU time of one thread, medians; compared things take turns.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.report import Row
from bench.turns import in_turns
from dualasr_lib.decoding.one_head import OneHeadSearch
from dualasr_lib.decoding.transducer.beam import TransducerBeam
from dualasr_lib.decoding.transducer.greedy import TransducerGreedy
from dualasr_lib.decoding.transducer.joiner import Joiner
from dualasr_lib.decoding.transducer.options import BeamConfig, GreedyConfig
from dualasr_lib.lattice.options import FastBeamConfig
from dualasr_lib.lattice.path import Path
from dualasr_lib.lattice.transducer_search import Join, fast_beam

__all__ = ["CHUNK", "CONTEXT", "DIM", "Heard", "heard_of", "join_of", "transducer_rows"]

DIM, CONTEXT, CHUNK = 512, 2, 8  # joiner and prediction network as published; frames of 320 ms
_BATCH = 10
_LIMITS = {"transducer-greedy": (50.0, 80.0), "transducer-beam, beam=4": (150.0, 400.0)}
"""Milliseconds per utterance of 10 s at V of 3000 and more: in a batch, alone."""


class Heard(NamedTuple):
    """A joiner, and utterances as it hears them."""

    tables: Mapping[str, Tensor]
    frames: list[Tensor]
    """Each (S, D)."""
    texts: list[tuple[int, ...]]
    """What they should say."""


def heard_of(vocab_size: int, num_frames: int = 250, tokens: int = 50, seed: int = 0) -> Heard:
    """Ten utterances, each of `num_frames` and `tokens`."""
    generator = torch.Generator().manual_seed(seed)
    output = torch.randn(vocab_size, DIM, generator=generator)
    tables = {
        "contexts": 0.3 * torch.randn(CONTEXT, vocab_size, DIM, generator=generator),
        "prediction": 0.5 * torch.randn(DIM, DIM, generator=generator) / DIM**0.5,
        "prediction_bias": torch.zeros(DIM),
        "output": 0.06 * output,
        "output_bias": torch.zeros(vocab_size),
    }
    frames, texts = [], []
    for _ in range(_BATCH):
        said = torch.zeros(num_frames, dtype=torch.int64)
        when = torch.randperm(num_frames, generator=generator)[:tokens]
        said[when] = torch.randint(1, vocab_size, (tokens,), generator=generator)
        rival = torch.randint(1, vocab_size, (num_frames,), generator=generator)
        share = 0.6 * torch.rand(num_frames, 1, generator=generator) * (said > 0)[:, None]
        frames.append(output[said] + share * output[rival])
        texts.append(tuple(said[said > 0].tolist()))
    return Heard(tables, frames, texts)


def transducer_rows(vocab_size: int, rounds: int) -> Iterator[Row]:
    """Utterances of 10 s, ten in a batch and one alone, whole and in chunks of 320 ms."""
    heard = heard_of(vocab_size)
    greedy = TransducerGreedy(heard.tables, GreedyConfig())
    beam = TransducerBeam(heard.tables, BeamConfig(beam=4))
    searches: dict[str, Callable[[list[Tensor]], Any]] = {
        "transducer-greedy": partial(_whole, greedy),
        "transducer-beam, beam=4": partial(_whole, beam),
        "k2, beam 4, states 32, contexts 4": partial(_k2, heard, vocab_size),
    }
    works = {
        (name, count): partial(search, heard.frames[:count])
        for name, search in searches.items()
        for count in (_BATCH, 1)
    }
    works["transducer-greedy, in chunks", 1] = partial(_stream, greedy, heard.frames[0])
    works["transducer-beam, beam=4, in chunks", 1] = partial(_stream, beam, heard.frames[0])
    case, measured = f"V={vocab_size}, 10 s", in_turns(works, rounds)
    for (name, count), milliseconds in measured.items():
        limits = _LIMITS.get(name) if vocab_size >= 3000 else None
        limit = limits and limits[count == 1]
        yield Row(case, f"{name}, N={count}", milliseconds / count, "ms", at_most=limit or None)
    for name, search in searches.items():
        right = sum(p.tokens == t for p, t in zip(search(heard.frames), heard.texts))
        yield Row(case, f"{name}, utterances of {_BATCH} without any error", right)
    states, counts = [beam.open()], list[int]()
    for frame in heard.frames[0].split(1):
        states = [beam.step([frame], states)[0].state]
        counts.append(len(states[0].beam))
    yield Row(case, "sureness: hypotheses per frame, of 4", sum(counts) / len(counts))


def _whole(search: OneHeadSearch, frames: list[Tensor]) -> list[Any]:
    steps = search.step(frames, [search.open()] * len(frames))
    return [search.finish(step.state) for step in steps]


def _stream(search: OneHeadSearch, frames: Tensor) -> object:
    state = search.open()
    for chunk in frames.split(CHUNK):
        state = search.step([chunk], [state])[0].state
    return search.finish(state)


def _k2(heard: Heard, vocab_size: int, frames: list[Tensor]) -> list[Path]:
    config = FastBeamConfig(beam=4.0, max_states=32, max_contexts=4)
    return fast_beam(frames, join_of(heard), vocab_size, CONTEXT, config)


def join_of(heard: Heard) -> Join:
    """The joiner as k2's search wants it."""
    joiner = Joiner(heard.tables, GreedyConfig())

    def join(rows: Tensor, contexts: Tensor) -> Tensor:
        logits, norm = joiner.outcomes(rows, joiner.texts(contexts))
        return logits - norm[:, None]

    return join
