"""Latency: hand-made histories with known answers, and a slow definition of "shown for good"."""

import random
from typing import NamedTuple

import pytest

from dualasr_lib.metrics.latency import (
    Shown,
    algorithmic_latency_ms,
    emission_delays,
    first_token_latency,
    percentiles_ms,
    revised_characters,
    stable_times,
)


class Word(NamedTuple):
    text: str
    start: float
    end: float


HISTORY = [
    Shown("", 0.3),
    Shown("き", 0.6),
    Shown("今日", 0.9),
    Shown("今日は", 1.2),
    Shown("今日は雨", 1.5),
]
WORDS = [Word("今日", 0.2, 0.7), Word("は", 0.7, 0.8), Word("晴れ", 0.8, 1.4)]


def slow_stable_times(history: list[Shown]) -> list[float]:
    final = history[-1].text
    times = []
    for count in range(1, len(final) + 1):
        good = [shown.text[:count] == final[:count] for shown in history]
        first = next(k for k in range(len(history)) if all(good[k:]))
        times.append(history[first].seconds)
    return times


def test_shown_for_good_against_definition() -> None:
    rng = random.Random(0)
    for _ in range(200):
        history = [
            Shown("".join(rng.choices("あい", k=rng.randrange(6))), float(time))
            for time in range(6)
        ]
        assert stable_times(history) == slow_stable_times(history)
    assert stable_times([]) == []


def test_emission_delay_counts_correct_words_only() -> None:
    # 今日 is complete at 0.9 and ends at 0.7; は at 1.2 and 0.8; 晴れ is wrong.
    assert emission_delays(HISTORY, WORDS) == pytest.approx([0.2, 0.4])


def test_wrong_words_of_the_right_length_have_no_delay() -> None:
    history = [Shown("今日", 0.9), Shown("今日雨だ", 1.5)]
    assert emission_delays(history, [WORDS[0], WORDS[2]]) == pytest.approx([0.2])
    history.append(Shown("今日晴だ", 1.8))
    assert emission_delays(history, [WORDS[0], WORDS[2]]) == pytest.approx([0.2])


def test_emission_delay_counts_the_last_character_of_a_word() -> None:
    """今 is shown at 0.4, long before 日; 雨降り grows character by character and ends at 1.5."""
    history = [Shown("今", 0.4), Shown("今日", 0.9), Shown("今日雨", 1.2), Shown("今日雨降", 1.6)]
    history.append(Shown("今日雨降り", 2.0))
    words = [Word("今日", 0.2, 0.7), Word("雨降り", 0.8, 1.5)]
    assert emission_delays(history, words) == pytest.approx([0.2, 0.5])


def test_a_word_taken_back_counts_from_its_return() -> None:
    history = [Shown("今日", 0.8), Shown("強", 1.0), Shown("今日", 1.6)]
    assert emission_delays(history, WORDS[:1]) == pytest.approx([0.9])


def test_insertions_do_not_shift_words() -> None:
    history = [Shown("え", 0.5), Shown("え今日", 0.9)]
    assert emission_delays(history, WORDS[:1]) == pytest.approx([0.2])


def test_words_without_counted_characters_have_no_delay() -> None:
    assert emission_delays([Shown("今日", 1.0)], [Word("", 0, 0.1), *WORDS[:1]]) == pytest.approx(
        [0.3]
    )
    assert emission_delays([], WORDS) == []


def test_first_token() -> None:
    assert first_token_latency(HISTORY, WORDS) == pytest.approx(0.4)
    assert first_token_latency(HISTORY[:1], WORDS) is None
    assert first_token_latency(HISTORY, []) is None


def test_revisions() -> None:
    assert revised_characters(HISTORY) == 1  # き -> 今日
    assert revised_characters([Shown("今日は", 0), Shown("今", 1), Shown("今夜", 2)]) == 2
    assert revised_characters([]) == 0


def test_percentiles() -> None:
    assert percentiles_ms([0.1, 0.2, 0.3]) == pytest.approx({"p50": 200, "p90": 280, "p99": 298})
    assert percentiles_ms([], [50]) == {"p50": None}


def test_algorithmic_latency() -> None:
    assert algorithmic_latency_ms(5120, 120, 16000) == 327.5
