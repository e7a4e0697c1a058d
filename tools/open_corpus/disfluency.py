"""What makes a read sentence spontaneous: fillers, fragments, repeats, repairs, long vowels,
pauses.

Disfluencies are put into the list of words before synthesis, so they are coarticulated, not pasted.
The tags are CSJ's: `(F えー)` filler, `(D く)` fragment, `(D2 が)` repaired particle, `で` with
pronunciation `デ<H>`, `(A 二;２)` number.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from open_corpus.words import (
    Node,
    Word,
    clauses,
    filler_node,
    num_moras,
    plain_word,
    split_moras,
    tag_numerals,
)

__all__ = ["CONNECTIVES", "Disfluency", "Filler", "speak_freely"]

Filler = tuple[str, str, float]
"""Written form, pronunciation, weight."""

_ALL_FILLERS: tuple[Filler, ...] = (
    ("えー", "エー", 8),
    ("えーと", "エート", 5),
    ("あのー", "アノー", 6),
    ("あの", "アノ", 4),
    ("その", "ソノ", 3),
    ("まー", "マー", 6),
    ("ま", "マ", 3),
    ("あー", "アー", 2),
    ("えっと", "エット", 3),
)
CONNECTIVES = ("で", "それで", "次に", "あと", "ですから", "ということで", "しかし", "それから")
"""Put before some sentences of general text."""

_CONTENT = frozenset({"名詞", "動詞", "形容詞", "副詞", "代名詞"})
_REPEATABLE = frozenset({"名詞", "代名詞", "副詞"})
_CASE_PARTICLES = {"が": "ガ", "を": "オ", "に": "ニ", "で": "デ", "と": "ト"}
_KATAKANA_TO_HIRAGANA = {code: code - 0x60 for code in range(0x30A1, 0x30F5)}


@dataclass(frozen=True, kw_only=True)
class Disfluency:
    """How often; probabilities at each accent phrase unless said otherwise."""

    fillers: tuple[Filler, ...] = _ALL_FILLERS
    filler: float = 0.10
    fragment: float = 0.025
    """Before a content word: its first one or two morae."""
    repeat: float = 0.01
    """A noun or adverb said twice."""
    repair: float = 0.01
    """Before a case particle: a wrong one."""
    lengthening: float = 0.08
    """Of a particle that ends the phrase."""
    desune: float = 0.04
    """ですね after a particle that ends the phrase."""
    numeral_tag: float = 0.5
    """Per number: tagged with its digits."""
    connective: float = 0.2
    """Per sentence: a connective before it."""
    pause: float = 0.08
    """A pause (new inter-pausal unit) before the phrase."""
    min_moras: int = 4
    """No pause makes a unit shorter than this."""
    max_moras: int = 45
    """A pause is made before a phrase that would make the unit longer (about 6 s)."""


def speak_freely(
    text: str, disfluency: Disfluency, allowed: frozenset[str], rng: random.Random
) -> list[list[Word]] | None:
    """`text` as inter-pausal units of words; None when it cannot be read or written.

    `allowed` are the characters that may be written; an insertion that needs another is not made,
    a word that needs another refuses the sentence.
    """
    units: list[list[Word]] = []
    for clause in clauses(text) or []:
        words = list(_decorate(clause, disfluency, allowed, rng))
        for unit in _pauses(words, disfluency, rng):
            chosen = [rng.random() < disfluency.numeral_tag for _ in unit]
            units.append(tag_numerals(unit, chosen))
    if not units or not {x for unit in units for word in unit for x in word.text} <= allowed:
        return None
    return units


def _decorate(
    clause: Sequence[Node], disfluency: Disfluency, allowed: frozenset[str], rng: random.Random
) -> Iterator[Word]:
    for index, node in enumerate(clause):
        word = plain_word(node)
        if node["chain_flag"] != 1:
            inserted = [*_filler(disfluency, rng), *_fragment(word, disfluency, rng)]
            yield from (x for x in inserted if set(x.text) <= allowed)
            if word.pos in _REPEATABLE and rng.random() < disfluency.repeat:
                yield word
        elif word.text in _CASE_PARTICLES and word.info == "格助詞":
            yield from _repair(word, disfluency, rng)
        is_last = index + 1 == len(clause) or clause[index + 1]["chain_flag"] != 1
        if is_last and word.pos == "助詞":
            yield from _phrase_end(word, disfluency, allowed, rng)
        else:
            yield word


def _filler(disfluency: Disfluency, rng: random.Random) -> Iterator[Word]:
    if rng.random() < disfluency.filler:
        weights = [weight for _, _, weight in disfluency.fillers]
        text, pron, _ = rng.choices(disfluency.fillers, weights)[0]
        yield _tagged("F", text, pron, "感動詞")


def _fragment(word: Word, disfluency: Disfluency, rng: random.Random) -> Iterator[Word]:
    if word.pos not in _CONTENT or rng.random() >= disfluency.fragment:
        return
    moras = split_moras(word.node["pron"])
    start = "".join(moras[: rng.choice((1, 1, 2))]).rstrip("ッー")
    if (
        len(moras) >= 2 and start
    ):  # a fragment is shorter than its word and cannot be ッ or ー alone
        yield _tagged("D", start.translate(_KATAKANA_TO_HIRAGANA), start, "言いよどみ")


def _repair(word: Word, disfluency: Disfluency, rng: random.Random) -> Iterator[Word]:
    if rng.random() < disfluency.repair:
        wrong = rng.choice([x for x in _CASE_PARTICLES if x != word.text])
        said = _tagged("D2", wrong, _CASE_PARTICLES[wrong], "助詞")
        said.node["chain_flag"] = 1
        yield said


def _phrase_end(
    word: Word, disfluency: Disfluency, allowed: frozenset[str], rng: random.Random
) -> Iterator[Word]:
    lengthened, desune = rng.random(), rng.random()
    if lengthened < disfluency.lengthening and not word.pron.endswith(("ー", "ン", "ッ")):
        pron = word.node["pron"] + "ー"
        node = {**word.node, "pron": pron, "mora_size": word.node["mora_size"] + 1}
        yield word._replace(pron=word.pron + "<H>", node=node)
        return
    yield word
    if (
        desune < disfluency.desune
        and word.info in ("係助詞", "格助詞")
        and set("ですね") <= allowed
    ):
        for clause in clauses("ですね") or []:
            yield from (plain_word({**node, "chain_flag": 1}) for node in clause)


def _tagged(tag: str, text: str, pron: str, pos: str) -> Word:
    word = plain_word(filler_node(text, pron))
    return word._replace(surface=f"({tag} {text})", pron=f"({tag} {pron})", pos=pos)


def _pauses(
    words: Sequence[Word], disfluency: Disfluency, rng: random.Random
) -> Iterator[list[Word]]:
    """`words` cut before some accent phrases."""
    unit: list[Word] = []
    length, rest = 0, sum(map(_moras, words))
    for phrase in _accent_phrases(words):
        phrase_length = sum(map(_moras, phrase))
        wanted = rng.random() < disfluency.pause
        long_enough = min(length, rest) >= disfluency.min_moras
        if unit and (length + phrase_length > disfluency.max_moras or (wanted and long_enough)):
            yield unit
            unit, length = [], 0
        unit.extend(phrase)
        length, rest = length + phrase_length, rest - phrase_length
    yield unit


def _accent_phrases(words: Sequence[Word]) -> Iterator[list[Word]]:
    phrase: list[Word] = []
    for word in words:
        if phrase and word.node["chain_flag"] != 1:
            yield phrase
            phrase = []
        phrase.append(word)
    yield phrase


def _moras(word: Word) -> int:
    return num_moras(word.node["pron"])
