"""Error rates of characters and words: hand-counted cases and sums."""

import math

import pytest

from dualasr_lib.metrics.error_rate import ErrorCounts, count_errors
from dualasr_lib.metrics.units import CHARACTER, UNITS, WORD, Unit


@pytest.mark.parametrize(
    ("ref", "hyp", "expected"),
    [
        ("今日は晴れ", "今日は晴れ", ErrorCounts(0, 0, 0, 5)),
        ("今日は晴れ", "今日晴れた", ErrorCounts(1, 1, 0, 5)),
        ("今日は晴れ", "明日は晴れ", ErrorCounts(0, 0, 1, 5)),
        ("今日は晴れ", "", ErrorCounts(0, 5, 0, 5)),
        ("", "あ", ErrorCounts(1, 0, 0, 0)),
        ("今日 は\u3000晴れ\n", "今日は晴れ", ErrorCounts(0, 0, 0, 5)),
    ],
)
def test_counts(ref: str, hyp: str, expected: ErrorCounts) -> None:
    assert count_errors(ref, hyp) == expected


def test_sum_and_rate() -> None:
    counts = sum([ErrorCounts(1, 2, 3, 10), ErrorCounts(0, 0, 1, 4)], ErrorCounts())
    assert counts == ErrorCounts(1, 2, 4, 14)
    assert counts.errors == 7
    assert counts.rate == 0.5
    assert math.isnan(ErrorCounts().rate)


def test_a_character_is_a_code_point() -> None:
    assert CHARACTER.split("𠮷野 家") == ["𠮷", "野", "家"]


@pytest.mark.parametrize(
    ("ref", "hyp", "expected"),
    [
        ("the cat sat", "the cat sat", ErrorCounts(0, 0, 0, 3)),
        ("the cat sat", "the bat sat down", ErrorCounts(1, 0, 1, 3)),
        ("the  cat\tsat ", "a cat", ErrorCounts(0, 1, 1, 3)),
        ("", "uh", ErrorCounts(1, 0, 0, 0)),
    ],
)
def test_words_are_counted_whole(ref: str, hyp: str, expected: ErrorCounts) -> None:
    assert count_errors(ref, hyp, WORD) == expected


@pytest.mark.parametrize("unit", UNITS.values())
def test_units_make_their_text_again(unit: Unit) -> None:
    text = "今日は 晴れ"
    items = unit.split(text)
    assert unit.split(unit.join(items)) == items
    assert (unit.label, UNITS[unit.name]) == (unit.rate.upper(), unit)
