"""The frame loop: coming and going of streams, clocks, and what it refuses."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dualasr_lib.decoding.contract import Rewritten, Sentence
from dualasr_lib.decoding.greedy import OnlineGreedy
from dualasr_lib.decoding.hypothesis import Emission, Hypothesis, TokenPath
from dualasr_lib.decoding.one_head import OneHead
from dualasr_lib.decoding.streaming import StreamingConfig, Watcher, decode_streams

GREEDY = OneHead(OnlineGreedy())

Record = Callable[..., Any]
Text = Callable[[Any], str]


@pytest.mark.parametrize("num_streams", [1, 3, 20])
def test_texts_and_their_order(
    model: Any, record: Record, detokenise: Text, num_streams: int
) -> None:
    rng = random.Random(2)
    recordings = []
    for number in range(11):
        tokens = "".join(rng.choices("_あいうえ", k=rng.randrange(1, 14)))
        recordings.append(record(str(number), tokens))
    finals: list[str] = []
    run = decode_streams(
        iter(recordings),
        model,
        GREEDY,
        detokenise,
        StreamingConfig(num_streams=num_streams),
        watcher=Watcher(on_final=lambda hypothesis: finals.append(hypothesis.id)),
    )
    assert [h.id for h in run.hypotheses] == [r.id for r in recordings]
    assert sorted(finals) == sorted(r.id for r in recordings)
    for hypothesis, recording in zip(run.hypotheses, recordings):
        frames = [round(10 * float(x)) for x in recording.samples[320::640]]
        merged = [b for a, b in zip([0, *frames], frames) if b not in (a, 0)]
        assert hypothesis.path.tokens == tuple(merged)
        assert hypothesis.text == detokenise(merged)
        assert len(hypothesis.step_seconds) == (len(frames) + 1) // 2
        assert hypothesis.duration == len(recording.samples) / 16000
    assert max(model.batches) == min(num_streams, 11)
    assert sum(model.batches) == sum(len(h.step_seconds) for h in run.hypotheses)
    assert run.audio_seconds == sum(h.duration for h in run.hypotheses)


def test_partial_texts_and_their_audio_times(model: Any, record: Record, detokenise: Text) -> None:
    partials: list[tuple[str, Emission]] = []
    run = decode_streams(
        [record("a", "_あ__い_う")],  # steps: _あ, __, い_, う
        model,
        GREEDY,
        detokenise,
        StreamingConfig(),
        watcher=Watcher(on_partial=lambda id_, emission: partials.append((id_, emission))),
    )
    emissions = run.hypotheses[0].emissions
    assert [id_ for id_, _ in partials] == ["a"] * 3
    assert tuple(emission for _, emission in partials) == emissions
    assert [e.text for e in emissions] == ["あ", "あい", "あいう"]
    expected = [1400 / 16000, (3 * 1280 + 120) / 16000, 7 * 640 / 16000]
    assert [e.audio_seconds for e in emissions] == expected
    assert [e.shown_seconds for e in emissions] == expected
    assert all(e.compute_seconds > 0 for e in emissions)
    assert run.clock == "audio"


@pytest.mark.parametrize(
    ("num_samples", "text", "steps"),
    [(0, "", 0), (79, "", 0), (80, "あ", 1), (719, "あ", 1), (720, "あ", 1), (1360, "あ", 2)],
)
def test_ends_of_short_audio(
    model: Any, record: Record, detokenise: Text, num_samples: int, text: str, steps: int
) -> None:
    """The model says お for a frame of padding only; the loop must cut it off."""
    samples = torch.full((num_samples,), 0.1)
    recording = record("a", "")._replace(samples=samples)
    run = decode_streams([recording], model, GREEDY, detokenise, StreamingConfig())
    assert run.hypotheses[0].text == text
    assert len(run.hypotheses[0].step_seconds) == steps
    assert run.hypotheses[0].duration == num_samples / 16000


def test_realtime_waits_and_counts_compute(
    model: Any, record: Record, detokenise: Text, hand_clock: Any
) -> None:
    model.on_step = lambda: hand_clock.advance(0.03)
    run = decode_streams(
        [record("a", "あ_い_"), record("b", "う___え_")],
        model,
        GREEDY,
        detokenise,
        StreamingConfig(num_streams=2, realtime=True),
        clock=hand_clock.clock,
    )
    a, b = run.hypotheses
    assert run.clock == "wall"
    assert [e.shown_seconds for e in a.emissions] == pytest.approx([0.0875 + 0.03, 0.16 + 0.03])
    # b's second step shows nothing new; its third is due at 3840 / 16000 = 0.24 s.
    assert [e.shown_seconds for e in b.emissions] == pytest.approx([0.0875 + 0.03, 0.24 + 0.03])
    assert sum(hand_clock.slept) == pytest.approx(hand_clock.time - 100.0 - 4 * 0.03)
    assert run.compute_seconds == pytest.approx(4 * 0.03)  # a and b, a alone, b alone, b alone
    assert model.batches == [2, 1, 1, 1]


def test_realtime_falls_behind_when_compute_is_slow(
    model: Any, record: Record, detokenise: Text, hand_clock: Any
) -> None:
    model.on_step = lambda: hand_clock.advance(1.0)
    run = decode_streams(
        [record("a", "あいうえ")],
        model,
        GREEDY,
        detokenise,
        StreamingConfig(realtime=True),
        clock=hand_clock.clock,
    )
    shown = [e.shown_seconds for e in run.hypotheses[0].emissions]
    assert shown == pytest.approx([1.0875, 2.0875])
    assert run.rtf == pytest.approx(2.0 / 0.16)


class SecondThoughts(OnlineGreedy):
    """A search that drops the last token when the stream ends."""

    def finish(self, state: Any) -> TokenPath:
        path = super().finish(state)
        return path._replace(tokens=path.tokens[:-1])


def test_a_last_correction_is_shown(model: Any, record: Record, detokenise: Text) -> None:
    run = decode_streams(
        [record("a", "あい")], model, OneHead(SecondThoughts()), detokenise, StreamingConfig()
    )
    assert [e.text for e in run.hypotheses[0].emissions] == ["あい", "あ"]
    assert run.hypotheses[0].text == "あ"


@pytest.mark.parametrize("samples", [torch.zeros(2, 800), torch.full((800,), torch.nan)])
def test_bad_audio_is_named(model: Any, record: Record, detokenise: Text, samples: Tensor) -> None:
    recording = record("the-one", "あ")._replace(samples=samples)
    with pytest.raises(ValueError, match="the-one"):
        decode_streams([recording], model, GREEDY, detokenise, StreamingConfig())


def test_a_model_that_breaks_its_word(model: Any, record: Record, detokenise: Text) -> None:
    model.chunk_frames = 3
    with pytest.raises(ValueError, match=r"\(1, 3\) frames, but returned \(1, 2\)"):
        decode_streams([record("a", "あ")], model, GREEDY, detokenise, StreamingConfig())


def test_no_stream_and_none_allowed(model: Any, detokenise: Text) -> None:
    run = decode_streams([], model, GREEDY, detokenise, StreamingConfig())
    assert run.hypotheses == []
    assert run.rtf is None
    with pytest.raises(ValueError, match="num_streams"):
        StreamingConfig(num_streams=0)


class Doubling:
    """A second pass: each frame's hidden state is the best token of the first pass, twice. Its
    search falls back as often as there are frames.
    """

    def __init__(self, turn: Callable[[], None] = lambda: None) -> None:
        self.heard: list[list[int]] = []
        self._turn = turn

    def __call__(self, sentence: Sentence) -> Rewritten:
        hidden = sentence.hidden
        assert not (torch.ones(1, requires_grad=True) * 2).requires_grad
        self._turn()
        assert hidden.dim() == 2
        self.heard.append(hidden[:, 0].long().tolist())
        tokens = [t for t in self.heard[-1] if t for _ in range(2)]
        path = TokenPath(tuple(tokens), tuple(range(len(tokens))), -1.0)
        return Rewritten(path, fallbacks=len(hidden))


def with_hidden(model: Any) -> Any:
    """`model`, which now also returns what it hears at each frame."""
    step = model.step

    def hearing(window: Tensor, frames_left: Tensor, state: Any) -> Any:
        result = step(window, frames_left, state)
        return result._replace(hidden=result.frames["ctc"].argmax(dim=2, keepdim=True).float())

    model.step = hearing
    return model


@pytest.mark.parametrize("num_streams", [1, 3])
def test_a_second_pass_reads_all_frames_of_its_stream(
    model: Any, record: Record, detokenise: Text, num_streams: int
) -> None:
    """As many as the stream has, in order, although streams share their steps."""
    rng = random.Random(3)
    recordings = [
        record(str(i), "".join(rng.choices("_あいうえ", k=rng.randrange(1, 14)))) for i in range(7)
    ]
    second, finals = Doubling(), list[Hypothesis]()
    config = StreamingConfig(num_streams=num_streams)
    run = decode_streams(
        recordings, with_hidden(model), GREEDY, detokenise, config, second,
        Watcher(on_final=finals.append),
    )  # fmt: skip
    heard = {tuple(frames) for frames in second.heard}
    for hypothesis, recording in zip(run.hypotheses, recordings):
        frames = [round(10 * float(x)) for x in recording.samples[320::640]]
        assert tuple(frames) in heard
        assert hypothesis.path.tokens == tuple(t for t in frames if t for _ in range(2))
        assert hypothesis.text == detokenise(hypothesis.path.tokens)
        merged = [b for a, b in zip([0, *frames], frames) if b not in (a, 0)]
        assert hypothesis.first_pass_text == detokenise(merged)
        assert hypothesis.finalise_seconds is not None and hypothesis.finalise_seconds > 0
        assert hypothesis.final_seconds is None
        assert hypothesis.fallbacks == len(frames)
    assert sorted(finals) == sorted(run.hypotheses)


def test_a_second_pass_costs_its_time(
    model: Any, record: Record, detokenise: Text, hand_clock: Any
) -> None:
    model.on_step = lambda: hand_clock.advance(0.03)
    second = Doubling(lambda: hand_clock.advance(0.5))
    run = decode_streams(
        [record("a", "あい")], with_hidden(model), GREEDY, detokenise, StreamingConfig(),
        second, clock=hand_clock.clock,
    )  # fmt: skip
    assert run.hypotheses[0].finalise_seconds == pytest.approx(0.5)
    assert run.compute_seconds == pytest.approx(0.53)
    assert run.hypotheses[0].step_seconds == pytest.approx((0.03,))


def test_what_a_user_waits_for_the_final_text(
    model: Any, record: Record, detokenise: Text, hand_clock: Any
) -> None:
    """From the end of the audio: the last step, the second pass, and that of a stream before it."""
    model.on_step = lambda: hand_clock.advance(0.03)
    second = Doubling(lambda: hand_clock.advance(0.5))
    recordings = [record("a", "あいう"), record("b", "いうえ"), record("c", "え" * 20)]
    empty = record("d", "")._replace(samples=torch.zeros(20))
    run = decode_streams(
        [*recordings, empty], with_hidden(model), GREEDY, detokenise,
        StreamingConfig(num_streams=4, realtime=True), second, clock=hand_clock.clock,
    )  # fmt: skip
    waited = [hypothesis.final_seconds for hypothesis in run.hypotheses]
    assert waited[:2] == pytest.approx([0.03 + 0.5, 0.03 + 0.5 + 0.5])
    # At 0.15 s, after its first step, c has to wait for a and b. Its other nine steps are overdue
    # then. A text that was there before its audio had ended (d) is not waited for.
    assert waited[2:] == pytest.approx([0.15 + 2 * 0.5 + 9 * 0.03 + 0.5 - 0.8, 0.0])


def test_without_a_second_pass_a_user_waits_for_the_last_step(
    model: Any, record: Record, detokenise: Text, hand_clock: Any
) -> None:
    model.on_step = lambda: hand_clock.advance(0.03)
    run = decode_streams(
        [record("a", "あ_い_"), record("b", "う___え_")], model, GREEDY, detokenise,
        StreamingConfig(num_streams=2, realtime=True), clock=hand_clock.clock,
    )  # fmt: skip
    assert [h.final_seconds for h in run.hypotheses] == pytest.approx([0.03, 0.03])
    assert [h.finalise_seconds for h in run.hypotheses] == [None, None]


def test_without_a_second_pass_nothing_is_kept(
    model: Any, record: Record, detokenise: Text
) -> None:
    run = decode_streams(
        [record("a", "あ")],
        with_hidden(model),
        GREEDY,
        detokenise,
        StreamingConfig(),
    )
    assert run.hypotheses[0].finalise_seconds is None
    assert run.hypotheses[0].fallbacks == 0
    assert run.hypotheses[0].first_pass_text == run.hypotheses[0].text == "あ"


def test_a_second_pass_of_no_frames_is_none(model: Any, record: Record, detokenise: Text) -> None:
    recording = record("a", "")._replace(samples=torch.zeros(20))
    second = Doubling()
    run = decode_streams(
        [recording],
        with_hidden(model),
        GREEDY,
        detokenise,
        StreamingConfig(),
        second,
    )
    assert second.heard == []
    assert (run.hypotheses[0].text, run.hypotheses[0].finalise_seconds) == ("", None)


def test_a_second_pass_needs_hidden_states(model: Any, record: Record, detokenise: Text) -> None:
    with pytest.raises(ValueError, match="needs hidden states"):
        decode_streams(
            [record("a", "あ")],
            model,
            GREEDY,
            detokenise,
            StreamingConfig(),
            Doubling(),
        )
