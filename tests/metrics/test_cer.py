"""Character error rate: hand-counted cases and sums."""

import math

import pytest

from dualasr_lib.metrics.cer import ErrorCounts, characters, count_errors


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
    assert characters("𠮷野 家") == ["𠮷", "野", "家"]
