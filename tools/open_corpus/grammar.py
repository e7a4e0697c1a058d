"""A small weighted grammar whose sentences carry their intended reading.

Rules map a name to alternatives; an alternative is a template or (weight, template). In a template
`{NAME}` is another rule, `{NAME:ARG}` the same with `$` replaced by ARG in its alternatives,
`[漢字|かんじ]` a written form with its reading, and anything else reads as it is written (in kana).
Left out: recursion without end (`characters` would never return on it) and features of agreement
beyond what `$` carries.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

__all__ = ["Grammar", "Sentence", "same_sound", "to_katakana"]

Alternative = str | tuple[float, str]

_PART = re.compile(r"\{([^}]+)\}|\[([^|\]]+)\|([^\]]+)\]|([^{\[]+)")
_HIRAGANA_TO_KATAKANA = {code: code + 0x60 for code in range(0x3041, 0x3097)}
_VOWEL_ROWS = {
    "ア": "アカガサザタダナハバパマヤラワャァヮ",
    "イ": "イキギシジチニヒビピミリィ",
    "ウ": "ウクグスズツヌフブプムユルュゥヴ",
    "エ": "エケゲセゼテデネヘベペメレェ",
    "オ": "オコゴソゾトドノホボポモヨロョォ",
}
_VOWEL = {kana: vowel for vowel, row in _VOWEL_ROWS.items() for kana in row}
_LONG_PAIRS = {("オ", "ウ"): "オ", ("エ", "イ"): "エ"}
_MERGED = str.maketrans("ヲヂヅ", "オジズ")


class Sentence(NamedTuple):
    """A sentence and how it is meant to be read."""

    text: str
    """Kanji and kana, with 、 where a pause may be."""
    reading: str
    """Katakana, without punctuation."""


def to_katakana(text: str) -> str:
    """Hiragana -> katakana; everything else stays."""
    return text.translate(_HIRAGANA_TO_KATAKANA)


def same_sound(reading: str) -> str:
    """A canonical form of a kana reading: equal forms sound equal.

    Long vowels are spelt out (コウ, コー, コオ -> コオ; セイ, セー -> セエ), ヲ ヂ ヅ become
    オ ジ ズ, and the devoicing marks of Open JTalk are dropped.
    """
    result: list[str] = []
    for kana in to_katakana(reading).replace("’", "").translate(_MERGED):
        vowel = _VOWEL.get(result[-1], "") if result else ""
        result.append(vowel if kana == "ー" and vowel else _LONG_PAIRS.get((vowel, kana), kana))
    return "".join(result)


class Grammar:
    """Weighted rules that make `Sentence`s.

    Raises ValueError for a rule that names an unknown rule.
    """

    def __init__(self, rules: Mapping[str, Sequence[Alternative]]) -> None:
        self._rules = {name: [_weighted(a) for a in rules[name]] for name in rules}
        for name, alternatives in self._rules.items():
            for _, template in alternatives:
                self._check(name, template)

    def sample(self, rng: random.Random, start: str = "S") -> Sentence:
        """One sentence, by the weights."""
        parts = self._expand(start, "", rng)
        text = "".join(written for written, _ in parts)
        return Sentence(text, to_katakana("".join(read for _, read in parts)).replace("、", ""))

    def characters(self) -> frozenset[str]:
        """Every character that a sentence can hold (punctuation left out)."""
        written = "".join(
            match[2] or match[4] or ""
            for alternatives in self._rules.values()
            for _, template in alternatives
            for match in _PART.finditer(template)
        )
        return frozenset(written) - {"、", "$"}

    def _expand(self, name: str, argument: str, rng: random.Random) -> list[tuple[str, str]]:
        alternatives = self._rules[name]
        weights = [weight for weight, _ in alternatives]
        template = rng.choices(alternatives, weights)[0][1].replace("$", argument)
        parts: list[tuple[str, str]] = []
        for rule, written, reading, kana in _PART.findall(template):
            if rule:
                parts.extend(self._expand(*_split_call(rule), rng))
            else:
                parts.append((written, reading) if written else (kana, kana))
        return parts

    def _check(self, name: str, template: str) -> None:
        for match in _PART.finditer(template):
            called = _split_call(match[1])[0] if match[1] else ""
            if called and "$" not in called and called not in self._rules:
                raise ValueError(f"rule {name!r} calls {called!r}, which is not a rule")


def _weighted(alternative: Alternative) -> tuple[float, str]:
    return alternative if isinstance(alternative, tuple) else (1.0, alternative)


def _split_call(call: str) -> tuple[str, str]:
    name, _, argument = call.partition(":")
    return name, argument
