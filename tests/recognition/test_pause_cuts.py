"""A pause that ends a segment costs the next one nothing, whatever searches: a streaming head
writes a character some frames after it was said, so that who speaks again has begun when the
silence is long enough.
"""

import random
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

pytest.importorskip("sentencepiece")  # `language` knows tokenizers
pytest.importorskip("k2")

from short_cases import ARPA, TOKENIZER, A, B, C, V, detokenise, given

from dualasr_lib.decoding.contract import ModelStep, Rewritten
from dualasr_lib.decoding.endpoint import EndpointConfig
from dualasr_lib.decoding.events import Final, LiveConfig
from dualasr_lib.decoding.greedy import greedy
from dualasr_lib.decoding.live import Rules, listen
from dualasr_lib.decoding.rescoring import Scales
from dualasr_lib.recognition.language import Language, load_language
from dualasr_lib.recognition.methods.registry import find, names

_FRAME = 640
_LATE = 5
"""Frames after which a character is written: 200 ms."""
METHODS = names(lambda method: method.stream is not None)
ENGINES = [(name, ()) for name in METHODS] + [("1best", ("engine=k2",))]


class LateState(NamedTuple):
    labels: Tensor
    """(N, _LATE) said and not yet written."""
    last: Tensor
    """(N, 1) the label written last."""


class LateModel:
    """Frame s of the audio says label round(10 x sample), which its heads write `_LATE` frames
    later; its hidden states have it at once.
    """

    sample_rate = 16000
    frame_shift_samples = 160
    chunk_samples = 4 * _FRAME
    lookahead_samples = 120
    chunk_frames = 4

    def __init__(self) -> None:
        self.num_steps = 0

    def init_state(self, batch: int) -> LateState:
        none = torch.zeros(batch, _LATE, dtype=torch.int64)
        return LateState(none, none[:, :1])

    def num_feature_frames(self, num_samples: int) -> int:
        return num_samples // 160

    def num_output_frames(self, num_samples: int) -> int:
        return num_samples // _FRAME

    def step(self, window: Tensor, frames_left: Tensor, state: LateState) -> ModelStep:
        self.num_steps += 1
        said = (window[:, _FRAME // 2 : self.chunk_samples : _FRAME] * 10).round().long()
        labels = torch.cat([state.labels, said], dim=1)
        now = labels[:, : self.chunk_frames]
        before = torch.cat([state.last, now[:, :-1]], dim=1)
        starts = torch.where(now == before, 0, now)  # a transducer writes each once
        after = LateState(labels[:, self.chunk_frames :], now[:, -1:])
        ctc = torch.stack([sure(row) for row in now])
        transducer = torch.stack([torch.atanh(sure(row) / 60.0) for row in starts])
        hidden = torch.stack([sure(row) for row in said])
        return ModelStep({"ctc": ctc, "transducer": transducer}, after, hidden)


def sure(labels: Tensor) -> Tensor:
    """(S,) -> log-probs (S, V)."""
    return torch.full((len(labels), V), -30.0).scatter(1, labels[:, None], 0.0)


def second_pass(hidden: Tensor) -> Rewritten:
    """Hears what was said, at once."""
    return Rewritten(greedy(hidden[None], torch.tensor([len(hidden)]))[0])


def spoken(seed: int) -> tuple[Tensor, str]:
    """Sentences of one to four characters with silences of 0.2 to 3 seconds, and their text."""
    rng = random.Random(seed)
    labels, text = [0] * rng.randrange(20), list[int]()
    for _ in range(40):
        for label in rng.choices((A, B, C), k=rng.randrange(1, 5)):
            labels += [0] * (label == (labels or [0])[-1]) + [label] * rng.randrange(1, 3)
            text.append(label)
        labels += [0] * rng.choice((5, 9, 10, 11, 12, 13, 15, 20, 21, 22, 23, 24, 25, 60, 75))
    return (torch.tensor(labels) / 10).repeat_interleave(_FRAME), detokenise(text)


def heard(samples: Tensor, search: Any, config: LiveConfig) -> list[Final]:
    rules = Rules(LateModel(), search, detokenise, config, second_pass)
    return [event for event in listen([samples], rules) if isinstance(event, Final)]


@pytest.mark.parametrize("early", [float("inf"), 0.3])
@pytest.mark.parametrize(("method", "options"), ENGINES)
def test_nothing_is_lost_or_doubled(
    method: str, options: tuple[str, ...], early: float, tmp_path: Path
) -> None:
    """By either pass, over cuts of all kinds."""
    (tmp_path / "lm.arpa").write_text(ARPA, encoding="utf-8")
    ingredients = given(load_language(TOKENIZER, tmp_path / "lm.arpa"))
    search = find(method).online(options, ingredients, Scales()).search
    reasons = set[str]()
    for seed in range(3):
        samples, text = spoken(seed)
        config = LiveConfig(endpoint=EndpointConfig(max_seconds=4.0), early_seconds=early)
        finals = heard(samples, search, config)
        assert "".join(final.first_pass_text for final in finals) == text
        assert "".join(final.text for final in finals) == text
        reasons |= {final.reason for final in finals}
        ends = [0.0, *(final.end_seconds for final in finals)]
        assert [final.start_seconds for final in finals] == ends[:-1]
        for final in finals:
            for token in final.tokens:
                assert final.start_seconds <= token.seconds < final.end_seconds
    assert {"pause", "silence", "end"} <= reasons


def test_each_window_is_heard_once() -> None:
    """A cut costs no computing: the model goes on."""
    samples, _ = spoken(0)
    model = LateModel()
    search = find("greedy").online([], given(Language()), Scales()).search
    events = list(listen([samples], Rules(model, search, detokenise)))
    assert sum(isinstance(event, Final) for event in events) > 10
    assert model.num_steps == -(-len(samples) // model.chunk_samples)


def test_a_token_that_is_being_said_is_no_silence() -> None:
    """It would be written again after the cut."""
    labels = torch.tensor([A] * 60 + [0] * 25 + [B] * 3 + [0] * 5)
    samples = (labels / 10).repeat_interleave(_FRAME)
    search = find("greedy").online([], given(Language()), Scales()).search
    finals = heard(samples, search, LiveConfig())
    assert [final.text for final in finals] == ["あ", "い"]
    assert finals[0].end_seconds > 2.4


@pytest.mark.parametrize("lead", [0.04, 0.2, 0.4, 1.0, float("inf")])
def test_how_much_silence_the_next_segment_begins_with(lead: float) -> None:
    """As much as is asked for, at most half of it."""
    labels = torch.tensor([A] + [0] * 60 + [B] + [0] * 10)
    samples = (labels / 10).repeat_interleave(_FRAME)
    search = find("greedy").online([], given(Language()), Scales()).search
    endpoint = EndpointConfig(pause_seconds=2.0, lead_seconds=lead)
    first = heard(samples, search, LiveConfig(endpoint=endpoint))[0]
    assert first.reason == "pause"
    # あ is written at frame 5; 50 frames of silence are there when frame 56 of 4 is
    assert first.end_seconds == pytest.approx(56 * 0.04 - min(lead, 1.0))
