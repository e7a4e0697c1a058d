"""Searches of a transducer on streams: a chunk beside the model's own step, an hour of chunks.

Times are CPU time of one thread, medians.
"""

import time
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import NamedTuple

import torch

from bench.joint import build_joint
from bench.memory import resident_mb
from bench.posteriors import log_probs
from bench.report import Row
from bench.streaming import Load, RunningStream
from bench.timing import median
from bench.transducer_search import CHUNK, CONTEXT, DIM, Heard, heard_of, join_of
from bench.turns import in_turns
from bench.workloads import Setting
from dualasr_lib.decoding.greedy import OnlineGreedy
from dualasr_lib.decoding.one_head import OneHeadSearch
from dualasr_lib.decoding.transducer.beam import TransducerBeam
from dualasr_lib.decoding.transducer.greedy import TransducerGreedy
from dualasr_lib.decoding.transducer.options import BeamConfig, GreedyConfig
from dualasr_lib.lattice.options import FastBeamStreamConfig
from dualasr_lib.lattice.transducer_stream import OnlineFastBeam
from dualasr_lib.model.inference import prepare_for_inference, prepare_for_steps

__all__ = ["transducer_hour_rows", "transducer_step_rows"]

_STEPS = 31  # of 320 ms: 10 s


def transducer_step_rows(setting: Setting, rounds: int) -> Iterator[Row]:
    """A step of one stream: the encoder and what its heads say, then each search of that; the
    model's weights are random, so what is searched is made up.
    """
    model = build_joint(setting)[0].eval()
    prepare_for_inference(model)
    prepare_for_steps(model.streaming)
    stream = RunningStream(model.streaming, setting, Load(setting.chunk, 1))
    heard = heard_of(setting.vocab_size)
    posteriors = log_probs(CHUNK * _STEPS, setting.vocab_size, seed=1)

    def steps() -> None:
        with torch.inference_mode():
            for _ in range(_STEPS):
                model.frames(stream.step(), "streaming")

    works: dict[str, Callable[[], object]] = {
        "encoder and heads": steps,
        "1best (CTC)": lambda: _all(OnlineGreedy(), posteriors),
        **{
            name: lambda search=search: _all(search, heard.frames[0])  # type: ignore[misc]
            for name, search in _searches(heard, setting.vocab_size).items()
        },
    }
    found = {name: all_of / _STEPS for name, all_of in in_turns(works, rounds).items()}
    case = f"{setting.config.stem}, V={setting.vocab_size}, one stream, step of 320 ms"
    for name, milliseconds in found.items():
        yield Row(case, name, milliseconds, "ms")
    model_ms = found["encoder and heads"]
    for name in _searches(heard, setting.vocab_size):
        ratio = (model_ms + found[name]) / (model_ms + found["1best (CTC)"])
        limit = 1.5 if name == "transducer-beam" else None
        yield Row(case, f"step with {name} / step with 1best", ratio, at_most=limit)


def _all(search: OneHeadSearch, frames: torch.Tensor) -> None:
    """Chunk by chunk, each read as users do."""
    state = search.open()
    for chunk in frames.split(CHUNK):
        step = search.step([chunk], [state])[0]
        assert step.partial is not None
        state = step.state


def _searches(heard: Heard, vocab_size: int) -> dict[str, OneHeadSearch]:
    config = FastBeamStreamConfig()
    return {
        "transducer-greedy": TransducerGreedy(heard.tables, GreedyConfig()),
        "transducer-beam": TransducerBeam(heard.tables, BeamConfig()),
        "fast-beam": OnlineFastBeam(join_of(heard), DIM, vocab_size, CONTEXT, config),
    }


def transducer_hour_rows(vocab_size: int, minutes: int) -> Iterator[Row]:
    """One stream without any endpoint: its last tenth beside its first."""
    heard = heard_of(vocab_size)
    for name, search in _searches(heard, vocab_size).items():
        found = _hour(search, heard, minutes)
        tenth = len(found.times) // 10
        first, last = median(found.times[:tenth]), median(found.times[-tenth:])
        case = f"V={vocab_size}, {minutes} min stream"
        yield Row(case, f"{name}, chunk of 320 ms at the start", first, "ms")
        yield Row(case, f"{name}, chunk of 320 ms at the end", last, "ms")
        yield Row(case, f"{name}, end / start", last / first, at_most=1.2)
        yield Row(case, f"{name}, memory more than after the first tenth", found.growth, "MB")
        yield Row(case, f"{name}, tokens that are not sure at most", found.longest)


class _Hour(NamedTuple):
    times: list[float]
    """Milliseconds of each chunk."""
    longest: int
    """Tokens at the end of a text that were not committed."""
    growth: float
    """Resident memory at the end, minus that after a tenth, MB."""


def _hour(search: OneHeadSearch, heard: Heard, minutes: int) -> _Hour:
    state, times, longest, before = search.open(), list[float](), 0, 0.0
    for tens, frames in zip(range(6 * minutes), cycle(heard.frames)):
        before = resident_mb() if tens == (6 * minutes) // 10 else before
        for chunk in frames.split(CHUNK):
            begun = time.process_time()
            step = search.step([chunk], [state])[0]
            committed = step.num_committed
            times.append(1000 * (time.process_time() - begun))
            state = step.state
        longest = max(longest, len(step.partial.tokens) - committed)
    return _Hour(times, longest, resident_mb() - before)
