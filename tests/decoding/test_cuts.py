"""Speech that never pauses is cut, and loses nothing: the joined texts of both passes are those of
the stream without cuts.
"""

import math
import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from live_cases import GREEDY, Spelling

from dualasr_lib.decoding.contract import Rewritten, Sentence
from dualasr_lib.decoding.endpoint import EndpointConfig, cut_frame
from dualasr_lib.decoding.events import Final, LiveConfig, Partial
from dualasr_lib.decoding.greedy import greedy
from dualasr_lib.decoding.hypothesis import TokenPath
from dualasr_lib.decoding.live import Rules, listen

Record = Callable[..., Any]
Text = Callable[[Any], str]


def only_length(max_seconds: float, cut_seconds: float = 5.0) -> LiveConfig:
    rules = dict.fromkeys(("silence_seconds", "pause_seconds", "long_seconds"), math.inf)
    return LiveConfig(
        endpoint=EndpointConfig(max_seconds=max_seconds, cut_seconds=cut_seconds, **rules)
    )


def second_pass(sentence: Sentence) -> Rewritten:
    """Reads what the first one read, from the hidden states."""
    hidden = sentence.hidden
    path = greedy(hidden[None], torch.tensor([len(hidden)]))[0]
    return Rewritten(TokenPath(path.tokens, path.frames, 0.0))


@pytest.mark.parametrize("block", [640, 1279, 10**6])
@pytest.mark.parametrize("max_seconds", [0.4, 0.8, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_no_character_is_lost_or_doubled(
    model: Any, record: Record, detokenise: Text, seed: int, max_seconds: float, block: int
) -> None:
    """Characters of one to three frames, now and then a blank between them."""
    rng = random.Random(seed)
    spelt, text = "", ""
    for char in rng.choices("あいうえ", k=120):
        gap = "_" * rng.randrange(4)
        if text.endswith(char) and not gap:
            gap = "_"
        spelt += gap + char * rng.randrange(1, 4)
        text += char
    samples = record("a", spelt).samples
    hearing = Spelling(model)
    config = only_length(max_seconds)
    blocks = samples.split(block)
    events = list(listen(blocks, Rules(hearing, GREEDY, detokenise, config, second_pass)))
    finals = [event for event in events if isinstance(event, Final)]
    assert len(finals) >= len(spelt) * 0.04 / max_seconds - 1
    assert "".join(final.first_pass_text for final in finals) == text
    assert "".join(final.text for final in finals) == text
    assert {final.reason for final in finals[:-1]} == {"length"}
    for final in finals:
        assert 0 < final.end_seconds - final.start_seconds <= max_seconds + 1e-9
        for token in final.tokens:
            assert final.start_seconds - 1e-9 <= token.seconds < final.end_seconds
            assert spelt[round(token.seconds / 0.04)] == token.text
    assert all(a.end_seconds == pytest.approx(b.start_seconds) for a, b in pairwise(finals))
    assert finals[-1].end_seconds == pytest.approx(len(samples) / 16000)


def test_what_was_heard_of_the_next_segment_is_shown_at_once(
    model: Any, record: Record, detokenise: Text
) -> None:
    """Eight frames; the longest gap of the last four is before え."""
    samples = record("a", "あいあい__えう" + "いえいえ").samples
    config = only_length(0.32)
    events = list(listen([samples], Rules(model, GREEDY, detokenise, config)))
    told = [(type(event).__name__, event.segment, event.text) for event in events]
    assert told[:6] == [
        ("Partial", 0, "あい"),
        ("Partial", 0, "あいあい"),
        ("Partial", 0, "あいあいえう"),
        ("Final", 0, "あいあい"),
        ("Partial", 1, "えう"),
        ("Partial", 1, "えういえ"),
    ]
    first = next(event for event in events if isinstance(event, Final))
    assert first.end_seconds == pytest.approx(5 * 0.04)
    carried = next(event for event in events if isinstance(event, Partial) and event.segment == 1)
    assert carried.start_seconds == pytest.approx(5 * 0.04)
    assert carried.audio_seconds == pytest.approx((8 * 640 + 120) / 16000)


def test_the_model_is_not_started_anew(model: Any, record: Record, detokenise: Text) -> None:
    """Each sample is heard once, whatever is cut; the fake model checks that windows join."""
    samples = record("a", "あい_" * 100).samples
    list(listen(samples.split(640), Rules(model, GREEDY, detokenise, only_length(0.8))))
    assert len(model.batches) == 150


@pytest.mark.parametrize(
    ("best", "cut"),
    [
        ([1, 0, 2], 2),
        ([1, 0, 0, 2], 2),
        ([1, 0, 0, 0, 2, 0, 0, 3], 3),
        ([1, 0, 2, 0, 3], 4),  # of equals the last
        ([0], 1),
        ([0, 0, 0, 0], 2),
        ([0, 1], 1),
        ([1, 1, 2, 2], 2),  # no gap: where tokens meet
        ([1, 2], 1),
        ([1, 1, 1], 3),  # nothing to hold on to
        ([1], 1),
    ],
)
def test_where_speech_is_cut(best: list[int], cut: int) -> None:
    assert cut_frame(best) == cut


def test_against_all_runs_of_blanks() -> None:
    rng = random.Random(0)
    for _ in range(300):
        best = rng.choices([0, 0, 1, 2], k=rng.randrange(1, 12))
        runs = [
            (b - a, a)
            for a in range(len(best))
            for b in range(a + 1, len(best) + 1)
            if not any(best[a:b])
        ]
        cut = cut_frame(best)
        assert 1 <= cut <= len(best)
        if runs:
            length, start = max(runs)
            assert cut == max(1, start + (length + 1) // 2)
        elif cut < len(best):
            assert best[cut - 1] != best[cut]
