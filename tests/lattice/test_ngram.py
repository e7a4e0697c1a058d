"""The n-gram against back-off by recursion over a dict, and the ARPA files that it refuses."""

import gzip
import math
import random
from pathlib import Path

import numpy as np
import pytest

from dualasr_lib.lattice.lm import text_score
from dualasr_lib.lattice.ngram import NgramLm

SMALL = """\\data\\
ngram 1=4
ngram 2=4
ngram 3=2

\\1-grams:
-99\t<s>\t-0.5
-1.0\t</s>
-0.7\ta\t-0.3
-0.9\tb\t-0.2

\\2-grams:
-0.4\t<s> a\t-0.1
-0.6\ta b\t-0.25
-0.8\tb a
-0.2\tb </s>

\\3-grams:
-0.15\t<s> a b
-0.35\ta b </s>

\\end\\
"""

Ngrams = dict[tuple[str, ...], tuple[float, float]]


def backed_off(ngrams: Ngrams, history: tuple[str, ...], word: str) -> float:
    """log10 P(word | history) by the definition; `ngrams` gives (log10 probability, back-off)."""
    if (*history, word) in ngrams:
        return ngrams[(*history, word)][0]
    weight = ngrams[history][1] if history in ngrams else 0.0
    return weight + backed_off(ngrams, history[1:], word)


def slow_score(ngrams: Ngrams, words: list[str]) -> float:
    """Natural log-probability of a whole text."""
    order = max(map(len, ngrams))
    text = ["<s>", *words, "</s>"]
    log10 = sum(
        backed_off(ngrams, tuple(text[max(0, i - order + 1) : i]), text[i])
        for i in range(1, len(text))
    )
    return log10 * math.log(10)


def random_ngrams(rng: random.Random, words: list[str], order: int) -> Ngrams:
    """Each n-gram's history is an n-gram too; the n-gram without its first word need not be."""
    ngrams: Ngrams = {
        (word,): (-rng.random() - 0.1, -rng.random()) for word in ["<s>", "</s>", *words]
    }
    histories = [(word,) for word in ["<s>", *words]]
    for _ in range(2, order + 1):
        new = [(*h, w) for h in histories for w in [*words, "</s>"] if rng.random() < 0.4]
        for ngram in new:
            ngrams[ngram] = -rng.random() - 0.1, rng.choice([0.0, -rng.random()])
        histories = [ngram for ngram in new if ngram[-1] != "</s>"]
    return ngrams


def arpa(ngrams: Ngrams) -> str:
    """The text of an ARPA file; an n-gram without a back-off weight does not write it."""
    order = max(map(len, ngrams))
    sections = [[n for n in ngrams if len(n) == k] for k in range(1, order + 1)]
    lines = ["\\data\\", *(f"ngram {k}={len(n)}" for k, n in enumerate(sections, start=1)), ""]
    for k, section in enumerate(sections, start=1):
        lines.append(f"\\{k}-grams:")
        for ngram in section:
            score, weight = ngrams[ngram]
            lines.append(f"{score!r}\t{' '.join(ngram)}" + (f"\t{weight!r}" if weight else ""))
        lines.append("")
    return "\n".join([*lines, "\\end\\", ""])


def load(path: Path, text: str, names: str = "ab") -> NgramLm:
    path.write_text(text, encoding="utf-8")
    return NgramLm.load(path, {name: i for i, name in enumerate(names)})


def test_probabilities_of_a_small_trigram(tmp_path: Path) -> None:
    lm = load(tmp_path / "g.arpa", SMALL)
    assert lm.order == 3
    a, b = 0, 1
    ten = math.log(10)
    assert text_score(lm, [a, b]) == pytest.approx(ten * (-0.4 - 0.15 - 0.35))
    assert text_score(lm, []) == pytest.approx(ten * (-0.5 - 1.0))
    assert text_score(lm, [b, b]) == pytest.approx(ten * ((-0.5 - 0.9) + (-0.2 - 0.9) - 0.2))
    assert text_score(lm, [a, a]) == pytest.approx(ten * (-0.4 + (-0.1 - 0.3 - 0.7) + (-0.3 - 1.0)))


def test_a_listed_ngram_wins_over_a_likelier_backed_off_one(tmp_path: Path) -> None:
    text = SMALL.replace("-0.8\tb a", "-9.0\tb a")
    lm = load(tmp_path / "g.arpa", text)
    after_b = lm.advance(np.array([lm.start]), np.array([1])).target
    assert lm.advance(after_b, np.array([0])).score == pytest.approx([-9.0 * math.log(10)])


def test_texts_with_the_same_known_end_meet_in_one_state(tmp_path: Path) -> None:
    lm = load(tmp_path / "g.arpa", SMALL)
    states = np.full(2, lm.start)
    for tokens in ([0, 1], [1, 0], [0, 0]):  # a b a, b a a: "a a" is no history
        states = lm.advance(states, np.array(tokens)).target
    assert states[0] != lm.start
    assert states[0] == lm.advance(np.zeros(1, np.int64), np.array([0])).target[0]
    assert states[0] == states[1]


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_scores_are_those_of_the_definition(tmp_path: Path, order: int) -> None:
    rng = random.Random(order)
    for _ in range(10):
        words = list("abcd")
        ngrams = random_ngrams(rng, words, order)
        lm = load(tmp_path / "g.arpa", arpa(ngrams), "abcd")
        assert lm.order == max(map(len, ngrams))
        for _ in range(20):
            text = [rng.choice(words) for _ in range(rng.randrange(8))]
            got = text_score(lm, [words.index(word) for word in text])
            assert got == pytest.approx(slow_score(ngrams, text))


def test_many_questions_at_once_are_answered_in_their_order(tmp_path: Path) -> None:
    ngrams = random_ngrams(random.Random(7), list("abcd"), 4)
    lm = load(tmp_path / "g.arpa", arpa(ngrams), "abcd")
    rng = np.random.default_rng(0)
    texts = rng.integers(0, 4, (200, 6))
    states, scores = np.full(200, lm.start), np.zeros(200)
    for step in range(6):
        arcs = lm.advance(states, texts[:, step])
        assert arcs.source.tolist() == list(range(200))
        states, scores = arcs.target, scores + arcs.score
        assert states.max() < lm.num_states
    expected = [slow_score(ngrams, ["abcd"[i] for i in text]) for text in texts]
    assert scores + lm.final(states) == pytest.approx(np.array(expected))


def test_no_questions_no_answers(tmp_path: Path) -> None:
    lm = load(tmp_path / "g.arpa", SMALL)
    nothing = np.zeros(0, np.int64)
    assert len(lm.advance(nothing, nothing).score) == 0
    assert len(lm.final(nothing)) == 0


def test_ids_may_leave_gaps(tmp_path: Path) -> None:
    (tmp_path / "g.arpa").write_text(SMALL)
    plain = load(tmp_path / "g.arpa", SMALL)
    lm = NgramLm.load(tmp_path / "g.arpa", {"b": 3, "a": 9, "<blk>": 0})
    assert text_score(lm, [9, 3, 9]) == text_score(plain, [0, 1, 0])


def test_a_token_without_a_unigram_is_as_likely_as_the_least_likely_one(tmp_path: Path) -> None:
    lm = load(tmp_path / "g.arpa", SMALL, "abx")
    ten = math.log(10)
    assert text_score(lm, [2]) == pytest.approx(
        ten * (-0.5 - 1.0 - 1.0)
    )  # </s> is the least likely
    (tmp_path / "g.arpa").write_text(SMALL.replace("-0.9\tb", "-3.0\tb"))
    without_b = NgramLm.load(tmp_path / "g.arpa", {"a": 0, "x": 1}, ignore_other_words=True)
    assert text_score(without_b, [1]) == pytest.approx(ten * (-0.5 - 3.0 - 1.0))


def test_a_token_without_a_unigram_is_read_as_unknown(tmp_path: Path) -> None:
    ngrams = random_ngrams(random.Random(1), ["a", "<unk>"], 3)
    lm = load(tmp_path / "g.arpa", arpa(ngrams), "axyz")
    expected = slow_score(ngrams, ["a", "<unk>", "a", "<unk>", "<unk>"])
    assert text_score(lm, [0, 1, 0, 2, 3]) == pytest.approx(expected)


def test_the_marks_of_start_and_end_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "g.arpa").write_text(SMALL)
    names = {"a": 0, "b": 1, "<s>": 2, "</s>": 3, "x": 4}
    lm = NgramLm.load(tmp_path / "g.arpa", names)
    assert text_score(lm, [2]) == text_score(lm, [3]) == text_score(lm, [4])


def test_other_words_can_be_left_out(tmp_path: Path) -> None:
    ngrams = random_ngrams(random.Random(3), list("abcd"), 4)
    whole = load(tmp_path / "g.arpa", arpa(ngrams), "abcd")
    part = NgramLm.load(tmp_path / "g.arpa", {"d": 0, "b": 1}, ignore_other_words=True)
    assert part.num_states < whole.num_states
    for text in ([], [0], [1, 0, 0, 1], [0, 1, 1, 0]):
        assert text_score(part, text) == pytest.approx(
            text_score(whole, [{0: 3, 1: 1}[i] for i in text])
        )


@pytest.mark.parametrize(
    "edited",
    [
        "\ufeff" + SMALL,
        SMALL.replace("\n", "\r\n"),
        SMALL.replace("\t", "\u3000"),
        SMALL.replace("\\data\\", " \u00a0\\data\\\u00a0").replace("<s> a", "<s>\u00a0a"),
        SMALL.replace("-0.9\tb", "-0.9\tb\u200b"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_editors_do_to_an_arpa_file_changes_nothing(
    tmp_path: Path, edited: str, packed: bool
) -> None:
    """Packed files are known by their content, whatever their name."""
    path = tmp_path / "g.arpa"
    content = edited.encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    lm = NgramLm.load(path, {"a": 0, "b": 1})
    expected = load(tmp_path / "plain.arpa", SMALL, "ab")
    for text in ([], [0], [0, 1], [1, 1, 0]):
        assert text_score(lm, text) == text_score(expected, text)


def test_a_packed_file_that_was_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "g.arpa.gz"
    path.write_bytes(gzip.compress(SMALL.encode())[:-20])
    with pytest.raises(ValueError, match=r"g.arpa.gz: gzip file cut short or damaged"):
        NgramLm.load(path, {"a": 0, "b": 1})


def test_words_composed_otherwise_are_the_tokens(tmp_path: Path) -> None:
    """But a word that is itself a token keeps its name."""
    nfd, nfc = "か\u3099", "が"
    path = tmp_path / "g.arpa"
    path.write_text(SMALL.replace("a", nfd).replace("\\d" + nfd + "t" + nfd, "\\data"))
    path.write_text(path.read_text().replace("gr" + nfd + "m", "gram"))
    lm = NgramLm.load(path, {nfc: 0, "b": 1})
    assert text_score(lm, [0, 1]) == pytest.approx(math.log(10) * (-0.4 - 0.15 - 0.35))
    both = NgramLm.load(path, {nfc: 0, "b": 1, nfd: 2}, ignore_other_words=True)
    assert text_score(both, [2, 1]) == text_score(lm, [0, 1]) > text_score(both, [0, 1])


def test_bytes_that_are_not_utf_8_are_named(tmp_path: Path) -> None:
    path = tmp_path / "g.arpa"
    path.write_bytes(SMALL.encode().replace(b"\tb\t", b"\t\x82\xa0\t"))
    with pytest.raises(ValueError, match=r"g.arpa:10: must be UTF-8"):
        NgramLm.load(path, {"a": 0, "b": 1})


def test_spaces_of_other_scripts_do_not_split_words(tmp_path: Path) -> None:
    lm = load(tmp_path / "g.arpa", SMALL.replace("b", "\u3000"), "a\u3000")
    assert text_score(lm, [0, 1]) == pytest.approx(math.log(10) * -0.9)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("\\data\\", "", "'PATH' must be an ARPA file, but has no line"),
        ("ngram 1=4", "ngram 1=four", r"PATH:2: must be 'ngram 1=...', is 'ngram 1=four'"),
        ("ngram 2=4\n", "", r"PATH:3: must be 'ngram 2=...' or .*, is 'ngram 3=2'"),
        ("ngram 1=4", "ngram 1=5", r"PATH:11: must be one of 5 1-grams, .*, is ''"),
        ("ngram 1=4", "ngram 1=3", r"PATH:10: must be '\\2-grams:' after 3 1-grams, .*'-0.9\tb"),
        ("ngram 3=2", "ngram 3=3", r"PATH:21: must be one of 3 3-grams, .*, is ''"),
        ("-0.7\ta", "-0,7\ta", r"PATH:9: the weights of a 1-gram must be finite numbers, in '-0,7"),
        ("-0.6\ta b\t-0.25", "-0.6\ta b\tnan", r"PATH:14: the weights of a 2-gram must be finite"),
        ("-0.15\t<s> a b", "-0.15\t<s> a", r"PATH:19: must be one of 2 3-grams, .*<s> a'"),
        ("-0.15\t<s> a b", "-0.15\t<s> a b b 1", r"PATH:19: must be one of 2 3-grams"),
        ("-0.6\ta b", "-0.6\ta c", r"PATH:14: 'c' in a 2-gram has no 1-gram"),
        ("-0.6\ta b", "-0.6\tb a", r"PATH:15: the 2-gram 'b a' stands there twice"),
        ("-0.9\tb\t", "-0.9\ta\t", r"PATH:14: 'b' in a 2-gram has no 1-gram"),
        ("<s> a b", "b b a", r"PATH:19: the 3-gram 'b b a' begins with a history that is no"),
        ("-99\t<s>", "-99\ts", r"PATH:13: '<s>' in a 2-gram has no 1-gram"),
        ("\\end\\\n", "", r"'PATH' must have a line '\\end\\', but ends before it"),
        (SMALL[SMALL.index("-0.35") :], "", "'PATH' ends after 1 of 2 3-grams"),
        (SMALL[SMALL.index("ngram 3") :], "", r"'PATH' ends in \\data\\"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    path = tmp_path / "g.arpa"
    assert old in SMALL
    with pytest.raises(ValueError, match=complaint.replace("PATH", str(path))):
        load(path, SMALL.replace(old, new, 1))


def test_words_that_are_no_symbols_are_listed(tmp_path: Path) -> None:
    ngrams = random_ngrams(random.Random(0), list("abcdefgh"), 2)
    expected = r"g.arpa:9: 7 words are not among the symbols: 'b', 'c', 'd', 'e', 'f', ...$"
    with pytest.raises(ValueError, match=expected):
        load(tmp_path / "g.arpa", arpa(ngrams), "a")


def test_other_wrong_calls(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing.arpa' is missing"):
        NgramLm.load(tmp_path / "nothing.arpa", {})
    without = "\n".join(["\\data\\", "ngram 1=1", "\\1-grams:", "-1 <s>", "\\end\\"])
    with pytest.raises(ValueError, match=r"must have a 1-gram </s>"):
        load(tmp_path / "g.arpa", without)
    (tmp_path / "g.arpa").write_text(SMALL)
    with pytest.raises(ValueError, match=r"must be 0 or more, one is -1"):
        NgramLm.load(tmp_path / "g.arpa", {"a": -1, "b": 0})
