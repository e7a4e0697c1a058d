"""The lexicon against a search over all segmentations of a text, and the files that it refuses."""

import gzip
import itertools
import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from dualasr_lib.lattice.lexicon import LexiconLm
from dualasr_lib.lattice.lm import text_score
from dualasr_lib.lattice.ngram import NgramLm

BIGRAM = """\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-99\t<s>\t-0.5
-1.0\t</s>
-0.7\t東\t-0.3
-0.9\t東京\t-0.2
-0.8\t京\t-0.1

\\2-grams:
-0.4\t<s> 東京
-0.6\t東 京

\\end\\
"""

Spellings = list[tuple[int, tuple[int, ...]]]  # word, its tokens


def slow_scores(words: NgramLm, spellings: Spellings, text: tuple[int, ...]) -> list[float]:
    """One score for each way to cut a text into words."""

    def cuts(text: tuple[int, ...]) -> list[list[int]]:
        if not text:
            return [[]]
        return [
            [word, *rest]
            for word, spelling in spellings
            if text[: len(spelling)] == spelling
            for rest in cuts(text[len(spelling) :])
        ]

    return sorted(text_score(words, cut) for cut in cuts(text))


def scores(lm: LexiconLm, text: Sequence[int]) -> list[float]:
    """The same by reading token after token."""
    states, totals = np.array([lm.start]), np.zeros(1)
    for token in text:
        arcs = lm.advance(states, np.full(len(states), token))
        assert (np.diff(arcs.source) >= 0).all()
        states, totals = arcs.target, totals[arcs.source] + arcs.score
    totals = totals + lm.final(states)
    return sorted(totals[np.isfinite(totals)].tolist())


def make_ngram(path: Path, rng: random.Random, num_words: int) -> NgramLm:
    """A random bigram whose words 0, 1, ... are named by their numbers."""
    names = [str(i) for i in range(num_words)]
    pairs = [p for p in itertools.product(["<s>", *names], [*names, "</s>"]) if rng.random() < 0.5]
    lines = ["\\data\\", f"ngram 1={num_words + 2}", f"ngram 2={len(pairs)}", "\\1-grams:"]
    lines += [f"{-rng.random()}\t{name}\t{-rng.random()}" for name in ["<s>", "</s>", *names]]
    lines += ["\\2-grams:", *(f"{-rng.random()}\t{a} {b}" for a, b in pairs), "\\end\\"]
    path.write_text("\n".join(lines))
    return NgramLm.load(path, {name: i for i, name in enumerate(names)})


@pytest.mark.parametrize("seed", range(10))
def test_scores_are_those_of_all_segmentations(tmp_path: Path, seed: int) -> None:
    """Random spellings over three tokens: prefixes of each other, homophones, several a word."""
    rng = random.Random(seed)
    words = make_ngram(tmp_path / "words.arpa", rng, 6)
    entries = {
        (rng.randrange(6), tuple(rng.randrange(3) for _ in range(rng.randint(1, 3))))
        for _ in range(10)
    }
    spellings = sorted(entries)
    lm = LexiconLm(words, [tokens for _, tokens in spellings], [word for word, _ in spellings])
    found = 0
    for length in range(6):
        for text in itertools.product(range(3), repeat=length):
            expected = slow_scores(words, spellings, text)
            assert scores(lm, text) == pytest.approx(expected)
            found += len(expected)
    assert found > 100


def test_many_questions_at_once(tmp_path: Path) -> None:
    """All questions of a batch are answered as each of them alone."""
    words = make_ngram(tmp_path / "words.arpa", random.Random(0), 4)
    lm = LexiconLm(words, [(0,), (0, 1), (0,), (1, 0, 0)])
    states = [lm.start]
    for tokens in ((0,), (1,), (1, 0), (0, 0)):
        for token in tokens:
            states += lm.advance(np.array(states), np.full(len(states), token)).target.tolist()
    questions = np.array([(state, token) for state in set(states) for token in (0, 1, 2)])
    whole = lm.advance(questions[:, 0], questions[:, 1])
    assert len(whole.score) > len(questions) / 2
    for i, question in enumerate(questions):
        alone = lm.advance(question[:1], question[1:])
        mine = whole.source == i
        assert alone.target.tolist() == whole.target[mine].tolist()
        assert alone.score.tolist() == whole.score[mine].tolist()


def test_a_text_ends_only_where_a_word_has_ended(tmp_path: Path) -> None:
    words = make_ngram(tmp_path / "words.arpa", random.Random(0), 1)
    lm = LexiconLm(words, [(0, 1)])
    inside = lm.advance(np.array([lm.start]), np.array([0]))
    assert inside.score.tolist() == [0.0]
    assert lm.final(inside.target).tolist() == [-math.inf]
    ended = lm.advance(inside.target, np.array([1]))
    assert len(ended.target) == 1  # the leaf itself is no state
    assert lm.final(ended.target) + ended.score == pytest.approx([text_score(words, [0])])


@pytest.mark.parametrize("token", [-1, 1, 2, 1000])
def test_tokens_that_no_word_has_are_not_read(tmp_path: Path, token: int) -> None:
    """Even where their number would be that of another node's child."""
    words = make_ngram(tmp_path / "words.arpa", random.Random(0), 2)
    lm = LexiconLm(words, [(0, 1), (0, 0)])
    assert len(lm.advance(np.array([lm.start]), np.array([token])).target) == 0


def _load(folder: Path, lexicon: str, arpa: str = BIGRAM) -> LexiconLm:
    (folder / "lexicon.txt").write_text(lexicon, encoding="utf-8")
    (folder / "words.arpa").write_text(arpa, encoding="utf-8")
    return LexiconLm.load(
        folder / "lexicon.txt", folder / "words.arpa", {"東": 3, "京": 4, "都": 5}
    )


def test_a_lexicon_with_its_ngram(tmp_path: Path) -> None:
    lm = _load(tmp_path, "東 東\n東京 東 京\n京 京\n")
    ten = math.log(10)
    whole, cut = -0.4 - 0.2 - 1.0, (-0.5 - 0.7) - 0.6 + (-0.1 - 1.0)
    assert scores(lm, [3, 4]) == pytest.approx([ten * cut, ten * whole])


def test_a_word_that_the_ngram_lacks_is_unknown_and_one_without_spelling_is_not_read(
    tmp_path: Path,
) -> None:
    lm = _load(tmp_path, "東京 東 京\n都 都\n")
    ten = math.log(10)
    assert scores(lm, [5]) == pytest.approx([ten * (-0.5 - 1.0 - 1.0)])
    assert scores(lm, [3, 4, 5]) == pytest.approx([ten * (-0.4 + (-0.2 - 1.0) - 1.0)])
    assert scores(lm, [3]) == []


def test_a_word_may_have_several_spellings(tmp_path: Path) -> None:
    lm = _load(tmp_path, "東京 東 京\n京 京\n東京 都\n")
    assert scores(lm, [5]) == scores(lm, [3, 4])


@pytest.mark.parametrize(
    ("lexicon", "complaint"),
    [
        ("東 東\n京 凶\n", r"lexicon.txt:2: '凶' in the spelling of '京' is not among the symbols"),
        ("東 東\n京\n", r"lexicon.txt:2: must be a word and its tokens, is '京'"),
        (
            "東 東\n\n京 凶\n",
            r"lexicon.txt:3: '凶' in the spelling of '京' is not among the symbols",
        ),
        ("東 東\n京 京\n東 東\n", r"lexicon.txt:3: '東' has this spelling twice"),
        ("", r"lexicon.txt' must have lines `word token token ...`, but has none"),
    ],
)
def test_a_broken_lexicon_is_refused(tmp_path: Path, lexicon: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        _load(tmp_path, lexicon)


@pytest.mark.parametrize(
    "edited",
    [
        "\ufeff東 東\n東京 東 京\n京 京\n",
        "東 東\r\n東京 東 京\r\n京 京\r\n",
        "東 東\r東京 東 京\r京 京\r",
        "東\u3000東\n東京 東\u3000京\n京\u00a0京\n",
        "東\t東\n\n東京\t東 京\n  京  京  \n\n",
        "東 東\n東\u200b京 東 京\u2060\n京 京",
    ],
)
def test_what_editors_do_to_a_lexicon_changes_nothing(
    tmp_path: Path, edited: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With a byte order mark in it, the first word was no word of the n-gram."""
    expected = scores(_load(tmp_path, "東 東\n東京 東 京\n京 京\n"), [3, 4])
    assert len(expected) == 2
    assert scores(_load(tmp_path, edited), [3, 4]) == expected
    packed = gzip.compress(edited.encode())
    (tmp_path / "lexicon.txt").write_bytes(packed)
    symbols = {"東": 3, "京": 4, "都": 5}
    again = LexiconLm.load(tmp_path / "lexicon.txt", tmp_path / "words.arpa", symbols)
    assert scores(again, [3, 4]) == expected
    assert not caplog.records


def test_a_word_composed_otherwise_is_the_same_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """File systems and editors of Apple's write `が` as two characters."""
    arpa = BIGRAM.replace("東京", "がく")
    (tmp_path / "words.arpa").write_text(arpa, encoding="utf-8")
    (tmp_path / "lexicon.txt").write_text("か\u3099く か\u3099 く\n", encoding="utf-8")
    files = tmp_path / "lexicon.txt", tmp_path / "words.arpa"
    lm = LexiconLm.load(*files, {"が": 3, "く": 4})
    assert scores(lm, [3, 4]) == pytest.approx([math.log(10) * (-0.4 - 0.2 - 1.0)])
    assert not caplog.records


def test_words_that_the_ngram_lacks_are_counted_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _load(tmp_path, "東京 東 京\n都 都\n")
    (record,) = caplog.records
    files = f"{tmp_path}/lexicon.txt: 1 of its 2 words are not in {tmp_path}/words.arpa"
    assert record.getMessage() == f"{files} and are as unlikely as unknown words: 都"


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lexicon.txt' is missing"):
        LexiconLm.load(tmp_path / "lexicon.txt", tmp_path / "words.arpa", {})
    (tmp_path / "lexicon.txt").write_text("a a")
    with pytest.raises(ValueError, match=r"words.arpa' is missing"):
        LexiconLm.load(tmp_path / "lexicon.txt", tmp_path / "words.arpa", {"a": 0})


def test_spellings_must_have_tokens(tmp_path: Path) -> None:
    words = make_ngram(tmp_path / "words.arpa", random.Random(0), 2)
    with pytest.raises(ValueError, match=r"word 1 must have tokens, 0 or more, has \[\]"):
        LexiconLm(words, [(0,), ()])
    with pytest.raises(ValueError, match=r"2 spellings need as many words, got 1"):
        LexiconLm(words, [(0,), (1,)], [0])
