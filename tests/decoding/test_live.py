"""One endless stream: the same texts as `decode_streams`, cuts, times, and flat memory."""

import math
import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from dualasr_lib.decoding.contract import Rewritten, Sentence
from dualasr_lib.decoding.endpoint import EndpointConfig
from dualasr_lib.decoding.events import Final, LiveConfig, Partial
from dualasr_lib.decoding.greedy import OnlineGreedy
from dualasr_lib.decoding.hypothesis import TokenPath
from dualasr_lib.decoding.live import Listener, Rules, listen
from dualasr_lib.decoding.one_head import OneHead
from dualasr_lib.decoding.streaming import ModelStep, StreamingConfig, decode_streams

GREEDY = OneHead(OnlineGreedy())

Record = Callable[..., Any]
Text = Callable[[Any], str]

WHOLE = LiveConfig(
    endpoint=EndpointConfig(
        **dict.fromkeys(
            ("silence_seconds", "pause_seconds", "long_seconds", "max_seconds"), math.inf
        )
    )
)
QUICK = LiveConfig(
    endpoint=EndpointConfig(silence_seconds=0.4, pause_seconds=0.16, max_seconds=0.8)
)
"""10, 4 and 20 frames of 40 ms; a chunk has 2."""


def cut(samples: Tensor, size: int) -> Iterator[Tensor]:
    """Blocks of `size` samples."""
    return iter(samples.split(size)) if len(samples) else iter(())


def finals(events: Iterator[Any]) -> list[Final]:
    return [event for event in events if isinstance(event, Final)]


def speak(record: Record, tokens: str, extra: int = 0) -> Tensor:
    samples: Tensor = record("a", tokens, extra).samples
    return samples


@pytest.mark.parametrize("size", [1, 7, 160, 1279, 1280, 1400, 4000, 10**6])
@pytest.mark.parametrize("extra", [0, 1, 79, 80, 333, 639])
def test_one_utterance_equals_decode_streams(
    model: Any, record: Record, detokenise: Text, size: int, extra: int
) -> None:
    rng = random.Random(extra)
    for length in (1, 2, 3, 8) if size < 100 else (0, 1, 2, 3, 8, 13):
        recording = record("a", "".join(rng.choices("_あいうえ", k=length)), extra)
        expected = decode_streams(
            [recording], model, GREEDY, detokenise, StreamingConfig()
        ).hypotheses[0]
        blocks = cut(recording.samples, size)
        events = list(listen(blocks, Rules(model, GREEDY, detokenise, WHOLE)))
        if not len(recording.samples):
            assert events == []
            continue
        *partials, final = events
        assert isinstance(final, Final)
        assert final.text == final.first_pass_text == expected.text
        assert (final.start_seconds, final.end_seconds) == (0.0, expected.duration)
        assert final.reason == "end"
        frames = tuple(round(token.seconds / 0.04) for token in final.tokens)
        assert frames == expected.path.frames
        shown = [(event.text, event.audio_seconds) for event in partials]
        assert shown == [(emission.text, emission.audio_seconds) for emission in expected.emissions]


def test_a_length_of_more_frames_than_a_float_holds_is_none(
    model: Any, record: Record, detokenise: Text
) -> None:
    samples = speak(record, "_あ_い")
    huge, none = (
        list(listen(cut(samples, 999), Rules(model, GREEDY, detokenise, LiveConfig(endpoint=end))))
        for end in (EndpointConfig(max_seconds=1e308), EndpointConfig(max_seconds=math.inf))
    )
    assert [event.text for event in huge] == [event.text for event in none]
    assert finals(iter(huge))[-1].text == "あい"


class NoisyModel:
    """Its log-probs are a function of the whole window, of frames_left and of the last window."""

    sample_rate = 16000
    frame_shift_samples = 160
    chunk_samples = 1280
    lookahead_samples = 840
    chunk_frames = 2

    def init_state(self, batch: int) -> Tensor:
        return torch.zeros(batch, 2, 6)

    def num_feature_frames(self, num_samples: int) -> int:
        return (num_samples + 80) // 160

    def num_output_frames(self, num_samples: int) -> int:
        return math.ceil(math.ceil(self.num_feature_frames(num_samples) / 2) / 2)

    def step(self, window: Tensor, frames_left: Tensor, state: Tensor) -> ModelStep:
        weights = torch.randn(2120, 12, generator=torch.Generator().manual_seed(0))
        scores = (window @ weights).reshape(-1, 2, 6) + 0.5 * state
        scores = scores + 0.1 * frames_left.clamp(max=13)[:, None, None]
        log_probs = scores.log_softmax(dim=2)
        return ModelStep({"ctc": log_probs}, scores.tanh(), hidden=scores)


@pytest.mark.parametrize("num_samples", [80, 500, 1280, 1281, 2000, 2120, 2121, 9999, 12800])
@pytest.mark.parametrize("size", [33, 1280, 5000])
def test_windows_are_those_of_decode_streams(
    record: Record, detokenise: Text, num_samples: int, size: int
) -> None:
    """To the bit, reflection of the end included."""
    model = NoisyModel()
    samples = torch.randn(num_samples, generator=torch.Generator().manual_seed(num_samples))
    recording = record("a", "")._replace(samples=samples)
    heard: list[Tensor] = []

    def second_pass(sentence: Sentence) -> Rewritten:
        hidden = sentence.hidden
        heard.append(hidden)
        return Rewritten(TokenPath((3,), (0,), 0.0))

    run = decode_streams(
        [recording],
        model,
        GREEDY,
        detokenise,
        StreamingConfig(),
        second_pass=second_pass,
    )
    once = decode_streams([recording], model, GREEDY, detokenise, StreamingConfig())
    got = finals(listen(cut(samples, size), Rules(model, GREEDY, detokenise, WHOLE, second_pass)))
    assert [final.first_pass_text for final in got] == [once.hypotheses[0].text]
    assert [final.text for final in got] == [run.hypotheses[0].text] == ["う"]
    assert len(heard[0]) == model.num_output_frames(num_samples)
    assert torch.equal(heard[0], heard[1])


@pytest.mark.parametrize("size", [100, 1280, 10**6])
def test_cuts_at_pauses(model: Any, record: Record, detokenise: Text, size: int) -> None:
    """あ at frame 1; four blank frames after it are heard when the chunk of frames 6 is; the next
    segment begins with two of them.
    """
    samples = speak(record, "_あ____" + "__い_う_____" + "え")
    events = list(listen(cut(samples, size), Rules(model, GREEDY, detokenise, QUICK)))
    got = finals(iter(events))
    assert [(final.text, final.reason) for final in got] == [
        ("あ", "pause"),
        ("いう", "pause"),
        ("え", "end"),
    ]
    assert [final.start_seconds for final in got] == pytest.approx([0.0, 0.16, 0.56])
    assert [final.end_seconds for final in got] == pytest.approx([0.16, 0.56, 0.68])
    tokens = [(token.text, token.seconds) for final in got for token in final.tokens]
    assert [text for text, _ in tokens] == list("あいうえ")
    assert [seconds for _, seconds in tokens] == pytest.approx([0.04, 0.32, 0.4, 0.64])
    partials = [event for event in events if isinstance(event, Partial)]
    assert [(p.text, p.committed_text) for p in partials] == [
        ("あ", "あ"),
        ("い", "い"),
        ("いう", "いう"),
        ("え", "え"),
    ]
    assert [p.start_seconds for p in partials] == pytest.approx([0.0, 0.16, 0.16, 0.56])


def test_cuts_of_silence_and_of_length(model: Any, record: Record, detokenise: Text) -> None:
    samples = speak(record, "_" * 25 + "あい" * 15)
    got = finals(listen(cut(samples, 640), Rules(model, GREEDY, detokenise, QUICK)))
    assert [(final.text, final.reason) for final in got] == [
        ("", "silence"),  # ten frames: five are the next segment's
        ("", "silence"),
        ("", "silence"),
        ("あい" * 5 + "あ", "length"),  # frames 17 to 35; no gap: cut at the last change of token
        ("い" + "あい" * 9, "end"),
    ]
    joined = [(final.start_seconds, final.end_seconds) for final in got]
    assert all(a[1] == b[0] for a, b in pairwise(joined))


def test_pure_silence_and_no_audio(model: Any, detokenise: Text) -> None:
    def run(samples: Tensor) -> list[Any]:
        return list(listen([samples], Rules(model, GREEDY, detokenise, LiveConfig())))

    assert run(torch.zeros(0)) == []
    assert [(e.text, e.end_seconds) for e in run(torch.zeros(1))] == [("", 1 / 16000)]
    assert list(listen([], Rules(model, GREEDY, detokenise, LiveConfig()))) == []
    events = run(torch.zeros(5 * 16000))
    assert [event.reason for event in events] == ["silence", "silence", "end"]
    assert all(event.text == "" for event in events)


def test_the_tail_stays_short(model: Any, record: Record, detokenise: Text) -> None:
    """Ten minutes: neither samples, nor hidden states, nor anything else piles up."""
    listener = Listener(Rules(model, GREEDY, detokenise, QUICK))
    minute = speak(record, "_あい______" * 167)
    sizes: list[int] = []
    text = ""
    for _ in range(10):
        for block in minute.split(1600):
            text += "".join(event.text for event in finals(iter(listener.feed(block))))
            sizes.append(len(listener._live.stream.samples))
            assert listener._live.waiting == ()
    text += "".join(event.text for event in finals(iter(listener.finish())))
    assert text == "あい" * 1670
    assert max(sizes) <= 2 * 1400 + 1600


def test_the_second_pass_writes_the_final_text(record: Record, detokenise: Text) -> None:
    lengths: list[int] = []

    def second_pass(sentence: Sentence) -> Rewritten:
        hidden = sentence.hidden
        assert not hidden.requires_grad and hidden.dim() == 2
        lengths.append(len(hidden))
        return Rewritten(TokenPath((1, 2, 2), (0, 1, 3), -1.0), fallbacks=len(hidden))

    model, noise = NoisyModel(), torch.randn(16000, generator=torch.Generator().manual_seed(1))
    config = LiveConfig(endpoint=EndpointConfig(max_seconds=0.4, pause_seconds=math.inf))
    got = finals(listen(cut(noise, 999), Rules(model, GREEDY, detokenise, config, second_pass)))
    assert [final.fallbacks for final in got] == lengths == [9, 9, 7]  # cut where a token changes
    for final in got:
        assert final.text == "あいい"
        assert final.first_pass_text not in ("", final.text)
        assert final.finalise_seconds > 0
        times = [token.seconds - final.start_seconds for token in final.tokens]
        assert times == pytest.approx([0.0, 0.04, 0.12])


def test_silence_is_spared_the_second_pass(model: Any, detokenise: Text) -> None:
    class Offering:
        """The model of the fixture, with hidden states."""

        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

        def step(self, *arguments: Any) -> ModelStep:
            result = model.step(*arguments)
            return result._replace(hidden=torch.zeros(1, 2, 4))

    calls: list[int] = []

    def second_pass(sentence: Sentence) -> Rewritten:
        hidden = sentence.hidden
        calls.append(len(hidden))
        return Rewritten(TokenPath((), (), 0.0))

    blocks = [torch.zeros(5 * 16000)]
    rules = Rules(Offering(), GREEDY, detokenise, LiveConfig(), second_pass)
    events = finals(listen(blocks, rules))
    assert [event.reason for event in events] == ["silence", "silence", "end"]
    assert calls == []
    short = [torch.zeros(1600)]  # nothing was cut: this may be a word that the first pass missed
    finals(listen(short, rules))
    assert calls == [3]


def test_what_is_refused(model: Any, detokenise: Text) -> None:
    def run(*blocks: Tensor, **options: Any) -> list[Any]:
        return list(listen(blocks, Rules(model, GREEDY, detokenise, LiveConfig(), **options)))

    bad = torch.zeros(16000)
    bad[8000] = math.nan
    with pytest.raises(ValueError, match=r"NaN or infinity at 1\.500 s"):
        run(torch.zeros(16000), bad)
    with pytest.raises(ValueError, match=r"\(n,\) floating point"):
        run(torch.zeros(1, 16000))
    with pytest.raises(ValueError, match=r"\(n,\) floating point"):
        run(torch.zeros(16000, dtype=torch.int32))
    with pytest.raises(ValueError, match="needs hidden states"):
        run(torch.zeros(16000), second_pass=lambda hidden: Rewritten(TokenPath((), (), 0.0)))
    model.chunk_frames = 3
    with pytest.raises(ValueError, match=r"\(1, 3\) frames, but returned \(1, 2\)"):
        run(torch.zeros(16000))
