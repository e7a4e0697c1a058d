"""A streaming model whose audio spells its tokens, recordings for it, and a clock that is turned
by hand.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from dualasr_lib.decoding.streaming import Clock, ModelStep

_FRAME = 640  # samples of one encoder frame
_TOKENS = "_あいうえお"


class FakeState(NamedTuple):
    overlap: Tensor
    """(N, L): the look-ahead of the last window, which the next one must bring again."""
    age: Tensor
    """(N,) steps done."""


class FakeModel:
    """Encoder frame s says token round(10 x sample 640 s + 320): audio is text, errors are the
    loop's.

    Each step checks that the window overlaps the previous one of the *same* stream.
    """

    sample_rate = 16000
    frame_shift_samples = 160
    chunk_samples = 2 * _FRAME
    lookahead_samples = 120
    chunk_frames = 2

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.on_step: Callable[[], None] = lambda: None

    def init_state(self, batch: int) -> FakeState:
        return FakeState(torch.full((batch, 120), math.nan), torch.zeros(batch, dtype=torch.int64))

    def num_feature_frames(self, num_samples: int) -> int:
        return (num_samples + 80) // 160

    def num_output_frames(self, num_samples: int) -> int:
        return math.ceil(math.ceil(self.num_feature_frames(num_samples) / 2) / 2)

    def step(self, window: Tensor, frames_left: Tensor, state: FakeState) -> ModelStep:
        self.on_step()
        self.batches.append(len(window))
        assert window.shape == (len(window), 1400)
        assert frames_left.dtype == torch.int64
        assert frames_left.min() >= 1
        old = state.age > 0
        assert torch.equal(window[old, :120], state.overlap[old])
        tokens = (window[:, [320, 960]] * 10).round().long()
        tokens[:, 1] = torch.where(frames_left > 4, tokens[:, 1], 5)  # padding says お
        log_probs = torch.nn.functional.one_hot(tokens, 6).float().mul(9).log_softmax(dim=2)
        return ModelStep({"ctc": log_probs}, FakeState(window[:, 1280:].clone(), state.age + 1))


class Word(NamedTuple):
    text: str
    start: float
    end: float


class Recording(NamedTuple):
    id: str
    text: str
    samples: Tensor
    words: tuple[Word, ...] = ()

    def audio(self) -> Tensor:
        return self.samples


class HandClock:
    """Time passes by sleeping and by `advance`."""

    def __init__(self) -> None:
        self.time = 100.0
        self.slept: list[float] = []

    def advance(self, seconds: float) -> None:
        self.time += seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.time, self.sleep)


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def hand_clock() -> HandClock:
    return HandClock()


@pytest.fixture
def record() -> Callable[..., Recording]:
    """(id, tokens per encoder frame, extra samples) -> a recording that spells them."""

    def make(id_: str, tokens: str, extra: int = 0, words: tuple[Word, ...] = ()) -> Recording:
        ids = torch.tensor([_TOKENS.index(token) for token in tokens], dtype=torch.float32)
        samples = (ids / 10).repeat_interleave(_FRAME)
        text = tokens.replace("_", "")
        return Recording(id_, text, torch.cat([samples, torch.zeros(extra)]), words)

    return make


@pytest.fixture
def detokenise() -> Callable[[object], str]:
    def text(tokens: object) -> str:
        return "".join(_TOKENS[token] for token in tokens)  # type: ignore[attr-defined]

    return text


@pytest.fixture
def make_word() -> type[Word]:
    return Word
