"""Normalisers by name, on texts that each treats in its own way."""

import pytest

from dualasr_lib.recipe.normalise import NORMALISERS


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("none", "  Ａ  b\tC\n", "Ａ b C"),
        ("lower", "The CAT\u3000sat.", "the cat sat."),
        ("nfkc", "ｶﾞｷﾞ Ａ１", "ガギ A1"),
        ("japanese", "今日は、晴れ です。", "今日は晴れです"),
        ("japanese", "「ＡＢＣ 放送」 を 見た！", "ABC 放送を見た"),
        ("japanese", "ラーメン と コーヒー", "ラーメンとコーヒー"),
        ("english", "Don’t stop--he said, 'now'!", "don't stop he said now"),
        ("english", "It's 5 o'clock; e_mail", "it's 5 o'clock e mail"),
        ("english", "...", ""),
    ],
)
def test_text(name: str, text: str, expected: str) -> None:
    assert NORMALISERS[name](text) == expected


@pytest.mark.parametrize("name", NORMALISERS)
def test_what_is_normalised_stays_as_it_is(name: str) -> None:
    once = NORMALISERS[name]("  Ｄｏｎ’t 、「今 日は」 it's--ＯＫ… ")
    assert NORMALISERS[name](once) == once
