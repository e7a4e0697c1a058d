"""The grammar engine, and the demo domain: readings, homophones, enough of each character."""

import random
from collections import Counter

import pytest
from open_corpus.demo_domain import HOMOPHONES, demo_grammar
from open_corpus.grammar import Grammar, same_sound, to_katakana


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("こうえん", "コーエン"),
        ("せんせい", "センセー"),
        ("を", "オ"),
        ("あした", "アシ’タ"),
        ("きょう", "キョー"),
        ("とおい", "トーイ"),
    ],
)
def test_same_sound(one: str, other: str) -> None:
    assert same_sound(one) == same_sound(other)


def test_other_sounds_stay_apart() -> None:
    forms = {same_sound(x) for x in ("かわ", "かば", "かーわ", "かっわ", "かんわ")}
    assert len(forms) == 5


def test_to_katakana_leaves_the_rest() -> None:
    assert to_katakana("バスで行く、ー") == "バスデ行ク、ー"


def test_arguments_are_passed_down() -> None:
    rules = {
        "S": ["{A:GO}"],
        "A": ["[駅|えき]に{$.I}{END:$}"],
        "END": ["、[来|き]{$.I}"],
        "GO.I": ["いく"],
    }
    sentence = Grammar(rules).sample(random.Random(0))
    assert sentence.text == "駅にいく、来いく"
    assert sentence.reading == "エキニイクキイク"


def test_weights_are_respected() -> None:
    grammar = Grammar({"S": [(9, "あ"), "い"]})
    rng = random.Random(0)
    counts = Counter(grammar.sample(rng).text for _ in range(2000))
    assert 1700 < counts["あ"] < 1900


def test_unknown_rule_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"'S' calls 'PLACE'"):
        Grammar({"S": ["{PLACE:x}"]})


def test_same_seed_same_sentences() -> None:
    first, second = random.Random(5), random.Random(5)
    grammar = demo_grammar()
    assert [grammar.sample(first) for _ in range(50)] == [grammar.sample(second) for _ in range(50)]


def test_demo_characters_are_few_and_frequent() -> None:
    grammar, rng = demo_grammar(), random.Random(1)
    counts: Counter[str] = Counter()
    while sum(counts.values()) < 200_000:
        counts.update(grammar.sample(rng).text.replace("、", ""))
    assert set(counts) == grammar.characters()
    assert 100 <= len(counts) <= 150
    rarest = min(counts.values()) / sum(counts.values()) * 22_000  # what an hour of speech holds
    assert rarest >= 40


def test_demo_sentences_are_read_as_intended() -> None:
    pytest.importorskip("pyopenjtalk")
    from open_corpus.words import clauses

    grammar, rng = demo_grammar(), random.Random(2)
    misread = []
    for _ in range(300):
        sentence = grammar.sample(rng)
        said = "".join(node["pron"] for clause in clauses(sentence.text) or [] for node in clause)
        if same_sound(said) != same_sound(sentence.reading):
            misread.append(sentence.text)
    assert len(misread) <= 1, misread


def test_homophones_sound_alike_and_are_decided_later() -> None:
    pytest.importorskip("pyopenjtalk")
    from open_corpus.words import clauses

    grammar, rng = demo_grammar(), random.Random(3)
    texts = [grammar.sample(rng).text for _ in range(2000)]
    for pair in HOMOPHONES:
        one, other = ((clauses(word) or [[]])[0] for word in pair)
        assert len(one) == len(other) == 1
        assert one[0]["pron"] == other[0]["pron"]
        assert one[0]["acc"] == other[0]["acc"]
        before = [{t[: t.index(word)] for t in texts if word in t} for word in pair]
        assert all(len(contexts) > 20 for contexts in before)
        assert before[0] & before[1], f"{pair} never follow the same words"
