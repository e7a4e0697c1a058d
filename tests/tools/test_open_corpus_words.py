"""Words of a transcript: tags, numbers, phones, disfluencies."""

import random
from dataclasses import replace

import pytest

pytest.importorskip("pyopenjtalk")

from open_corpus.demo_domain import demo_grammar
from open_corpus.disfluency import Disfluency, speak_freely
from open_corpus.words import (
    Word,
    clauses,
    filler_node,
    labels,
    num_moras,
    phone_counts,
    plain_word,
    split_moras,
    tag_numerals,
)

_SILENT = Disfluency(
    filler=0, fragment=0, repeat=0, repair=0, lengthening=0, desune=0, numeral_tag=0, pause=0
)
_ANY = frozenset(map(chr, range(0x3041, 0xA000)))


def _words(text: str) -> list[Word]:
    return [plain_word(node) for clause in clauses(text) or [] for node in clause]


@pytest.mark.parametrize(
    ("text", "surface"),
    [
        ("七時に行く", "(A 七;７)時に行く"),
        ("二十分です", "(A 二十;２０)分です"),
        ("二千三百円", "(A 二千三百;２３００)円"),
        ("三枚買う", "(A 三;３)枚買う"),
        ("一人で二人に会う", "一人で二人に会う"),
        ("もう一度", "もう一度"),
    ],
)
def test_numbers_are_tagged(text: str, surface: str) -> None:
    words = _words(text)
    tagged = tag_numerals(words, [True] * len(words))
    assert "".join(word.surface for word in tagged) == surface
    assert "".join(word.text for word in tagged) == text


def test_numbers_not_chosen_stay() -> None:
    words = _words("七時")
    assert tag_numerals(words, [False] * len(words)) == words


def test_moras() -> None:
    assert split_moras("ショーユ") == ["ショ", "ー", "ユ"]
    assert split_moras("ティッシ’ュ") == ["ティ", "ッ", "シュ"]
    assert num_moras("コーエン") == 4


def test_phones_are_those_of_the_labels() -> None:
    """`labels` itself refuses a difference; here over many sentences with all insertions."""
    grammar, rng = demo_grammar(), random.Random(0)
    lively = Disfluency(filler=0.3, fragment=0.3, repeat=0.1, repair=0.3, lengthening=0.5)
    for _ in range(60):
        for unit in speak_freely(grammar.sample(rng).text, lively, _ANY, rng) or []:
            assert len(labels(unit)) == sum(phone_counts(unit)) + 2


def test_wrong_number_of_phones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("open_corpus.words._SINGLE_PHONE", frozenset())
    with pytest.raises(ValueError, match="'えー' must have 4 phones, but has 2"):
        labels([plain_word(filler_node("えー", "エー"))])


def test_late_accent_phrases_are_capped() -> None:
    long = "、".join(["昨日は友達と駅に行って本を読んだ"] * 3).replace("、", "")
    lines = labels(_words(long))
    positions = {int(line.split("@")[1].split("_")[0]) for line in lines[1:-1]}
    assert max(positions) == 7


def test_without_disfluencies_the_text_stays() -> None:
    units = speak_freely("昨日は雨だったので、本を読んだ。", _SILENT, _ANY, random.Random(0))
    assert units is not None
    assert ["".join(w.surface for w in unit) for unit in units] == [
        "昨日は雨だったので",
        "本を読んだ",
    ]


def test_each_disfluency_has_its_tag() -> None:
    text = "友達が駅に行ったので、母と本を読みました"
    cases = {
        "filler": "(F ",
        "fragment": "(D ",
        "repair": "(D2 ",
    }
    for name, tag in cases.items():
        units = speak_freely(text, replace(_SILENT, **{name: 1.0}), _ANY, random.Random(1)) or []
        inserted = [w for unit in units for w in unit if w.surface.startswith(tag)]
        assert inserted, name
        assert all(word.text == word.surface[len(tag) : -1] for word in inserted)
        kept = "".join(w.text for unit in units for w in unit if w not in inserted)
        assert kept == text.replace("、", "")


def test_lengthening_changes_the_sound_only() -> None:
    spoken = speak_freely("駅に行く", replace(_SILENT, lengthening=1.0), _ANY, random.Random(0))
    (unit,) = spoken or []
    assert unit[1].surface == "に"
    assert unit[1].pron == "ニ<H>"
    assert unit[1].node["pron"] == "ニー"


def test_insertions_keep_to_the_allowed_characters() -> None:
    text = "友達と駅に行く"
    lively = replace(_SILENT, filler=1.0, fragment=1.0)
    (unit,) = speak_freely(text, lively, frozenset(text), random.Random(0)) or []
    assert {x for word in unit for x in word.text} == set(text)
    assert speak_freely(text, _SILENT, frozenset("友達と駅に"), random.Random(0)) is None


def test_units_are_not_too_long() -> None:
    limits = replace(_SILENT, max_moras=20)
    text = "昨日は友達と駅の前の店で魚を食べてから電車で海に行きました"
    units = speak_freely(text, limits, _ANY, random.Random(0)) or []
    assert len(units) >= 2
    assert all(sum(num_moras(w.node["pron"]) for w in unit) <= 20 for unit in units)
