"""Models, recordings and places for the tests of live streams."""

import math
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dualasr_lib.decoding.contract import Rewritten, Sentence
from dualasr_lib.decoding.endpoint import EndpointConfig
from dualasr_lib.decoding.events import Final, LiveConfig
from dualasr_lib.decoding.greedy import OnlineGreedy, greedy
from dualasr_lib.decoding.hypothesis import TokenPath
from dualasr_lib.decoding.live import Listener, Rules
from dualasr_lib.decoding.one_head import OneHead
from dualasr_lib.decoding.pool import ListenerPool
from dualasr_lib.decoding.streaming import ModelStep

GREEDY = OneHead(OnlineGreedy())

Record = Callable[..., Any]
Text = Callable[[Any], str]

QUICK = EndpointConfig(silence_seconds=0.4, pause_seconds=0.16, long_seconds=9, max_seconds=0.8)
"""10, 4 and 20 frames of 40 ms; a chunk has 2."""


class RowState(NamedTuple):
    seen: Tensor
    """(N, 2120) the last window: what a row has heard, and nobody else."""
    age: Tensor
    """(N,) int64."""


class RowModel:
    """Each row of a step by itself, so that the size of a batch changes no bit. Tokens depend on
    the whole window, the age and the last window; a window of NaN gives NaN.
    """

    sample_rate = 16000
    frame_shift_samples = 160
    chunk_samples = 1280
    lookahead_samples = 840
    chunk_frames = 2

    def __init__(self) -> None:
        self.weights = torch.randn(2120, 12, generator=torch.Generator().manual_seed(0))
        self.sizes: list[int] = []

    def init_state(self, batch: int) -> RowState:
        return RowState(torch.zeros(batch, 2120), torch.zeros(batch, dtype=torch.int64))

    def num_feature_frames(self, num_samples: int) -> int:
        return (num_samples + 80) // 160

    def num_output_frames(self, num_samples: int) -> int:
        return math.ceil(math.ceil(self.num_feature_frames(num_samples) / 2) / 2)

    def step(self, window: Tensor, frames_left: Tensor, state: RowState) -> ModelStep:
        self.sizes.append(len(window))
        scores = []
        for samples, left, seen, age in zip(window, frames_left, *state):
            loud = samples.abs().max() > 0.01
            heard = (samples + 0.5 * seen) @ self.weights + 0.01 * age + 0.1 * left.clamp(max=13)
            rows = heard.reshape(2, 6)
            scores.append(torch.cat([rows[:, :1] + 99 * ~loud, rows[:, 1:]], dim=1))
        stacked = torch.stack(scores)
        after = RowState(window.clone(), state.age + 1)
        return ModelStep({"ctc": stacked.log_softmax(dim=2)}, after, hidden=stacked)


def second_pass(sentence: Sentence) -> Rewritten:
    """The best tokens but one, as a text of its own."""
    hidden = sentence.hidden
    path = greedy(hidden[None].log_softmax(dim=2), torch.tensor([len(hidden)]))[0]
    return Rewritten(
        TokenPath(path.tokens[:-1], path.frames[:-1], 0.0), fallbacks=sum(path.frames) % 2
    )


def talk(seed: int) -> Tensor:
    """Noise and silence by turns, of any length."""
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.zeros(0)]
    for number in range(int(torch.randint(0, 9, (1,), generator=generator))):
        size = int(torch.randint(1, 9000, (1,), generator=generator))
        parts.append(torch.randn(size, generator=generator).clamp(-3, 3) * (number % 2 == seed % 2))
    return torch.cat(parts)


def alone(samples: Tensor, detokenise: Text, config: LiveConfig) -> list[Any]:
    listener = Listener(Rules(RowModel(), GREEDY, detokenise, config, second_pass))
    return [*listener.feed(samples), *listener.finish()]


def timeless(events: Any) -> list[Any]:
    """Events without wall times."""
    return [e._replace(finalise_seconds=0.0) if isinstance(e, Final) else e for e in events]


class Elsewhere:
    """Tasks are run when the test says so."""

    def __init__(self) -> None:
        self.tasks: list[tuple[Callable[[], Any], Future[Any]]] = []

    def submit(self, task: Callable[[], Any]) -> Future[Any]:
        self.tasks.append((task, Future()))
        return self.tasks[-1][1]

    def run(self, number: int) -> None:
        task, future = self.tasks[number]
        if future.set_running_or_notify_cancel():
            future.set_result(task())


def sentences(record: Record, text: str) -> Tensor:
    samples: Tensor = record("a", text).samples
    return samples


class Spelling:
    """The fake model with hidden states that say which token a frame is."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def step(self, *arguments: Any) -> ModelStep:
        result = self._model.step(*arguments)
        return result._replace(hidden=result.frames["ctc"])


def drain(pool: ListenerPool) -> list[Any]:
    events = list(pool.step().get("a", ()))
    while pool.is_ready:
        events += pool.step().get("a", ())
    return events
