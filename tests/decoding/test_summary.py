"""Summaries: the agreed keys, and values that follow from the hypotheses."""

from collections.abc import Callable
from typing import Any

import pytest

from dualasr_lib.decoding.contract import Rewritten, Sentence
from dualasr_lib.decoding.greedy import OnlineGreedy
from dualasr_lib.decoding.hypothesis import Hypothesis, TokenPath
from dualasr_lib.decoding.offline import Decoded
from dualasr_lib.decoding.one_head import OneHead
from dualasr_lib.decoding.streaming import StreamingConfig, decode_streams
from dualasr_lib.decoding.summary import (
    RunInfo,
    Scoring,
    describe,
    main_unit,
    offline_summary,
    streaming_summary,
)
from dualasr_lib.metrics.units import CHARACTER, WORD

GREEDY = OneHead(OnlineGreedy())

KEYS = [
    "split",
    "branch",
    "method",
    "variant",
    "pooled",
    "data",
    "num_utterances",
    "normaliser",
    "unit",
    "normalisation",
    "num_ref_chars",
    "ins",
    "del",
    "sub",
    "cer",
    "cer_ci95",
    "rtf",
    "audio_seconds",
    "fallbacks",
    "params",
]
INFO = RunInfo("eval1", "full", "1best", {"epoch": 3}, ("epoch3", "avg2"))


def hypothesis(id_: str, ref: str, text: str) -> Hypothesis:
    return Hypothesis(id_, text, ref, TokenPath((), (), 0.0), 2.0)


def test_offline() -> None:
    hypotheses = [hypothesis("a", "今日は晴れ", "今日晴れた"), hypothesis("b", "明日", "明後")]
    summary = offline_summary(INFO, Decoded(hypotheses, 4.0, 1.0, 5, 2))
    assert list(summary) == KEYS
    values = ["eval1", "full", "1best", "epoch3-avg2", False, "", 2, "none", "character"]
    assert [summary[key] for key in KEYS[:9]] == values
    assert [summary[key] for key in KEYS[10:15]] == [7, 1, 1, 1, 3 / 7]
    assert summary["normalisation"].startswith("white space removed")
    low, high = summary["cer_ci95"]
    assert low <= 3 / 7 <= high
    assert (summary["rtf"], summary["audio_seconds"], summary["fallbacks"]) == (0.25, 4.0, 5)
    assert summary["params"]["epoch"] == 3
    assert summary["params"]["num_threads"] == 2
    assert describe({**summary, "cer_ci95": [0.4, 0.5]}) == "CER 42.86 % (40.00-50.00), RTF 0.2500"


def test_words_and_characters() -> None:
    """The main unit in the fields themselves, the other one beside them."""
    info = INFO._replace(scoring=Scoring((WORD, CHARACTER), "english", pooled=True))
    hypotheses = [hypothesis("a", "the cat sat", "the bat sat"), hypothesis("b", "on", "on it")]
    summary = offline_summary(info, Decoded(hypotheses, 4.0, 1.0, 5, 2))
    assert (summary["unit"], summary["num_ref_words"], summary["wer"]) == ("word", 4, 2 / 4)
    assert (summary["ins"], summary["del"], summary["sub"]) == (1, 0, 1)
    assert "cer" not in summary
    (also,) = summary["also"]
    assert (also["unit"], also["num_ref_chars"], also["cer"]) == ("character", 11, 3 / 11)
    assert (summary["normaliser"], summary["pooled"]) == ("english", True)
    text = describe({**summary, "wer_ci95": [0.25, 0.75]})
    assert text == "WER 50.00 % (25.00-75.00), CER 27.27 %, RTF 0.2500"


def test_a_summary_without_its_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="older version, decode again"):
        main_unit({"split": "eval1", "cer": 0.5})
    assert main_unit({"unit": "word"}) == WORD


def test_nothing_decoded_gives_null_not_zero() -> None:
    summary = offline_summary(INFO, Decoded([], 0.0, 0.0, 0, 1))
    assert (summary["cer"], summary["cer_ci95"], summary["rtf"]) == (None, None, None)
    assert summary["num_utterances"] == 0
    assert describe(summary) == "no reference"


def test_streaming(
    model: Any,
    record: Callable[..., Any],
    detokenise: Callable[[Any], str],
    make_word: Callable[..., Any],
    hand_clock: Any,
) -> None:
    words = (make_word("あ", 0.04, 0.08), make_word("い", 0.16, 0.2), make_word("ん", 0.2, 0.3))
    model.on_step = lambda: hand_clock.advance(0.03)
    run = decode_streams(
        [record("a", "_あ__い_", words=words)],
        model,
        GREEDY,
        detokenise,
        StreamingConfig(num_streams=3),
        clock=hand_clock.clock,
    )
    summary = streaming_summary(INFO, run, model)
    assert list(summary) == [*KEYS, "latency"]
    assert summary["cer"] == 0.0
    latency = summary["latency"]
    assert list(latency) == [
        "algorithmic_ms",
        "first_token_ms",
        "emission_ms",
        "partial_revision_rate",
        "chunk_compute_ms",
        "num_streams",
    ]
    assert latency["algorithmic_ms"] == 87.5
    assert latency["first_token_ms"] == pytest.approx(87.5 - 40)
    # あ: 87.5 - 80 ms; い: shown at the end, 240 ms, minus 200 ms; ん is never heard.
    assert latency["emission_ms"]["p50"] == pytest.approx((7.5 + 40) / 2)
    assert list(latency["emission_ms"]) == ["p50", "p90", "p99"]
    assert latency["partial_revision_rate"] == 0.0
    assert latency["chunk_compute_ms"] == pytest.approx({"p50": 30, "p99": 30})
    assert latency["num_streams"] == 3
    assert summary["params"]["latency_clock"] == "audio"


def test_two_passes(
    model: Any, record: Callable[..., Any], detokenise: Callable[[Any], str], hand_clock: Any
) -> None:
    """CER and errors are those of the second pass; latencies and `first_pass_cer` of the first."""

    def rewrite(sentence: Sentence) -> Rewritten:
        hand_clock.advance(0.2)
        left_out = ("attention",) if sentence.seconds < 1 else ()
        return Rewritten(TokenPath((1, 2, 2), (0, 1, 2), 0.0), 2, left_out)

    step = model.step
    model.step = lambda *given: (made := step(*given))._replace(hidden=made.frames["ctc"])
    recordings = [record(id_, "_あ__い_")._replace(text="あいいう") for id_ in "ab"]
    run = decode_streams(
        recordings, model, GREEDY, detokenise, StreamingConfig(), rewrite,
        clock=hand_clock.clock,
    )  # fmt: skip
    summary = streaming_summary(INFO, run, model)
    assert list(summary) == [*KEYS, "first_pass_cer", "second_pass_left_out", "latency"]
    assert summary["second_pass_left_out"] == {}
    hurried = decode_streams(
        recordings, model, GREEDY, detokenise, StreamingConfig(budget_seconds=0.5), rewrite,
        clock=hand_clock.clock,
    )  # fmt: skip
    left_out = streaming_summary(INFO, hurried, model)["second_pass_left_out"]
    assert left_out == {"attention": 2}
    assert summary["cer"] == 1 / 4
    assert summary["first_pass_cer"] == 2 / 4
    assert summary["fallbacks"] == 4
    latency = summary["latency"]
    assert latency["second_pass_ms"] == pytest.approx({"p50": 200, "p90": 200, "p99": 200})
    assert "final_ms" not in latency
    assert latency["partial_revision_rate"] == 0.0


def test_in_real_time_the_wait_for_the_final_text_is_told(
    model: Any, record: Callable[..., Any], detokenise: Callable[[Any], str], hand_clock: Any
) -> None:
    model.on_step = lambda: hand_clock.advance(0.03)
    run = decode_streams(
        [record("a", "_あ__い_")], model, GREEDY, detokenise,
        StreamingConfig(realtime=True), clock=hand_clock.clock,
    )  # fmt: skip
    summary = streaming_summary(INFO, run, model)
    assert list(summary) == [*KEYS, "latency"]
    assert summary["fallbacks"] == 0
    assert summary["latency"]["final_ms"] == pytest.approx({"p50": 30, "p90": 30, "p99": 30})
    assert "second_pass_ms" not in summary["latency"]


def test_streaming_without_words(
    model: Any, record: Callable[..., Any], detokenise: Callable[[Any], str]
) -> None:
    run = decode_streams([record("a", "__")], model, GREEDY, detokenise, StreamingConfig())
    latency = streaming_summary(INFO, run, model)["latency"]
    assert latency["first_token_ms"] is None
    assert latency["emission_ms"] == {"p50": None, "p90": None, "p99": None}
    assert latency["partial_revision_rate"] is None
