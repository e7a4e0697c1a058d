"""Our n-grams against kaldingram's, which counts in dictionaries: the same n-grams, probabilities
and back-off weights."""

import math
import random
from pathlib import Path

import pytest

pytest.importorskip("kaldingram")

from kaldingram import cli as kaldingram

from dualasr_lib.recipe.kneser_ney import write_ngram

Scores = tuple[float, float | None]


def _read(path: Path) -> dict[tuple[str, ...], Scores]:
    """N-gram -> log10 of its probability and back-off weight; the counts of the head are right."""
    found: dict[tuple[str, ...], Scores] = {}
    wanted: dict[int, int] = {}
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line.startswith("ngram "):
            order, _, count = line.removeprefix("ngram ").partition("=")
            wanted[int(order)] = int(count)
        elif "\t" in line:
            score, ngram, *backoff = line.split("\t")
            words = tuple(ngram.split(" "))
            assert words not in found
            found[words] = (float(score), float(backoff[0]) if backoff else None)
    for order, count in wanted.items():
        assert sum(len(words) == order for words in found) == count
    return found


def _text(kind: str) -> str:
    if kind == "tiny":
        return "a b a\nb\n\na b a b\n"
    if kind == "once":
        return "a b c d e f\n"
    rng = random.Random(1)
    words = ["あ", "▁the", "x", "<unk>", "é", *"ghijklm"]
    words += [f"w{n}" for n in range(200)] if kind == "many words" else []
    lines = (
        " ".join(words[int(len(words) ** rng.random()) - 1] for _ in range(rng.randrange(30)))
        for _ in range(400)
    )
    return "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize("order", [2, 3, 5])
@pytest.mark.parametrize("kind", ["tiny", "once", "random"])
def test_the_same_as_kaldingram(tmp_path: Path, kind: str, order: int) -> None:
    text, ours, theirs = tmp_path / "text", tmp_path / "ours", tmp_path / "theirs"
    text.write_text(_text(kind), encoding="utf-8")
    write_ngram(text, order, ours)
    kaldingram.main(
        ["train", "--ngram-order", str(order), "--text", str(text), "--lm", str(theirs)]
    )
    found, wanted = _read(ours), _read(theirs)
    assert found.keys() == wanted.keys()
    for words, (score, backoff) in wanted.items():
        assert found[words][0] == pytest.approx(score, abs=2e-6), words
        if backoff is None:
            assert found[words][1] is None, words
        else:
            assert found[words][1] == pytest.approx(backoff, abs=2e-6), words


def test_probabilities_of_what_follows_add_up(tmp_path: Path) -> None:
    """After every history, over all words, by back-off; no history is followed by all of them, or
    what the discount takes away would be lost."""
    text, arpa = tmp_path / "text", tmp_path / "arpa"
    text.write_text(_text("many words"), encoding="utf-8")
    write_ngram(text, 3, arpa)
    found = _read(arpa)
    words = [words[0] for words in found if len(words) == 1]

    def score(history: tuple[str, ...], word: str) -> float:
        if (*history, word) in found:
            return found[(*history, word)][0]
        return (found[history][1] or 0.0) + score(history[1:], word)

    histories = [each for each in found if len(each) < 3 and found[each][1] is not None]
    assert len(histories) > 50
    for history in histories[::20]:
        assert math.fsum(10 ** score(history, word) for word in words) == pytest.approx(1, abs=1e-5)


def test_chunks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "text"
    text.write_text(_text("random"), encoding="utf-8")
    write_ngram(text, 3, tmp_path / "whole")
    monkeypatch.setattr("dualasr_lib.recipe.kneser_ney._CHUNK", 7)
    write_ngram(text, 3, tmp_path / "pieces")
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "pieces").read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "must have text"), ("a b\nc </s> d\n", "text:2: words must not be <s> or </s>")],
)
def test_what_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "text").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        write_ngram(tmp_path / "text", 3, tmp_path / "arpa")
    assert not (tmp_path / "arpa").exists()
