"""Chunk after chunk through the streaming encoder, without head and search: time of each step.

Streams are a batch. Cost does not depend on how old a stream is, because caches have fixed shapes;
a few steps warm up. Gradients are off, as in decoding.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from bench.timing import Gemm, Rate, Time, measure, median
from bench.workloads import Setting, encoder_config, generator, model_values
from dualasr_lib.core.rates import FRONT_END_STRIDE
from dualasr_lib.model.encoder import EncoderState, StreamingEncoder
from dualasr_lib.model.inference import prepare_for_inference, prepare_for_steps
from dualasr_lib.model.zipformer.streaming import ChunkSpec

__all__ = ["Load", "Measured", "RunningStream", "measure_loads", "percentile", "target_ms"]

_WARM_UP = 3


class Load(NamedTuple):
    """What one step has to do."""

    chunk: int
    """Chunk in 50 Hz frames."""
    streams: int
    """Streams in parallel."""


_TARGETS = {Load(32, 1): 38.0, Load(32, 8): 110.0}
"""Milliseconds of one step of the small encoder on one thread where `_REFERENCE` holds."""
_REFERENCE = 90e9
"""Rate of matrix products, operations per second, that the targets were set at."""


class Measured(NamedTuple):
    """Steps of one load."""

    load: Load
    steps: list[Time]
    rates: list[Rate]
    """Rates of square matrix products around them."""


class RunningStream:
    """Random features going through the encoder, chunk by chunk."""

    def __init__(self, encoder: StreamingEncoder, setting: Setting, load: Load) -> None:
        self._encoder, self._setting = encoder, replace(setting, chunk=load.chunk)
        self._spec: ChunkSpec = self._setting.spec
        device = torch.device(setting.device)
        frames = FRONT_END_STRIDE * load.chunk + encoder.lookahead
        bins = encoder_config(model_values(setting)).num_features
        noise = torch.randn(load.streams, frames, bins, generator=generator())
        self._features = (3.5 * noise - 6.0).to(device)
        self._left = torch.full((load.streams,), 10**9, device=device)  # no end in sight
        self._prepared = encoder.prepare(self._spec, device)
        self._state: EncoderState = encoder.init_state(load.streams, self._spec, device)

    def step(self) -> Tensor:
        """The next chunk's (N, S, C)."""
        with self._setting.autocast():
            h, self._state = self._encoder.step(
                self._features, self._left, self._state, self._prepared
            )
        return h


def measure_loads(
    encoder: StreamingEncoder, setting: Setting, loads: Sequence[Load], rounds: int, steps: int
) -> list[Measured]:
    """`steps` steps of each load in turn, `rounds` times, and matrix products between them."""
    prepare_for_inference(encoder)  # as TrainedModel.from_checkpoint does
    prepare_for_steps(encoder)  # as TrainedModel.streaming does
    device = torch.device(setting.device)
    kind = torch.bfloat16 if setting.dtype == "bfloat16" and device.type == "cuda" else None
    gemm = Gemm(device, kind or torch.float32)
    with torch.inference_mode():
        found = [Measured(load, [], []) for load in loads]
        streams = [RunningStream(encoder, setting, load) for load in loads]
        before = gemm.square()
        for _ in range(rounds):
            for stream, item in zip(streams, found):
                for _ in range(_WARM_UP):
                    stream.step()
                item.steps.extend(measure(stream.step, device) for _ in range(steps))
                after = gemm.square()
                item.rates.append(Rate(*(0.5 * (a + b) for a, b in zip(before, after))))
                before = after
    return found


def target_ms(measured: Measured) -> float | None:
    """The target of a load's CPU time, if it has one: slower matrix products allow more."""
    target = _TARGETS.get(measured.load)
    if target is None:
        return None
    return target * _REFERENCE / median([rate.cpu for rate in measured.rates])


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]
