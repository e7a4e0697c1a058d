"""The graph of an n-gram: every text's score is that of the best way to back off."""

import itertools
import math
import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("k2")

from test_ngram import Ngrams, arpa, random_ngrams

from dualasr_lib.lattice.lexicon import LexiconLm
from dualasr_lib.lattice.lm import text_score
from dualasr_lib.lattice.ngram import NgramLm
from dualasr_lib.lattice.token_graph import token_graph


def slow_best(ngrams: Ngrams, words: list[str]) -> float:
    """Natural log: at any time the history may be shortened at the cost of its back-off weight."""
    order = max(map(len, ngrams))

    def shortened(scores: dict[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
        found = dict(scores)
        for history in sorted(scores, key=len, reverse=True):
            score, rest = scores[history], history
            while rest:
                score += ngrams[rest][1] if rest in ngrams else 0.0
                rest = rest[1:]
                found[rest] = max(found.get(rest, -math.inf), score)
        return found

    scores: dict[tuple[str, ...], float] = {("<s>",) if order > 1 else (): 0.0}
    for word in [*words, "</s>"]:
        following: dict[tuple[str, ...], float] = {}
        for history, score in shortened(scores).items():
            if (*history, word) in ngrams:
                longer = (*history, word)[-(order - 1) :] if order > 1 else ()
                total = score + ngrams[(*history, word)][0]
                following[longer] = max(following.get(longer, -math.inf), total)
        scores = following
    return max(scores.values()) * math.log(10)


def graph_score(graph: Any, tokens: list[int]) -> float:
    """The best path's, arc by arc; minus infinity if there is none."""
    sources, targets, labels, _ = graph.arcs.values().t().tolist()
    arcs = list(zip(sources, targets, labels, graph.scores.tolist()))
    states = {0: 0.0}
    for token in [*tokens, -1]:
        following: dict[int, float] = {}
        for source, target, label, score in arcs:
            if label == token and source in states:
                total = states[source] + score
                following[target] = max(following.get(target, -math.inf), total)
        states = following
    return max(states.values(), default=-math.inf)


@pytest.mark.parametrize("seed", range(8))
def test_texts_get_the_score_of_the_best_way(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    order = 1 + seed % 4
    ngrams = random_ngrams(rng, ["a", "b", "c"], order)
    path = tmp_path / "lm.arpa"
    path.write_text(arpa(ngrams), encoding="utf-8")
    symbols = {"<blk>": 0, "a": 1, "b": 2, "c": 3}
    lm = NgramLm.load(path, symbols)
    graph = token_graph(lm, 4, 0.5)
    assert int(graph.labels.min()) == -1 and not bool((graph.labels == 0).any())
    exact = 0
    for _ in range(20):
        tokens = [rng.randrange(1, 4) for _ in range(rng.randrange(0, 7))]
        score = graph_score(graph, tokens) / 0.5
        assert score == pytest.approx(slow_best(ngrams, ["_abc"[t] for t in tokens]), abs=1e-4)
        assert score >= text_score(lm, tokens) - 1e-4
        exact += score == pytest.approx(text_score(lm, tokens), abs=1e-4)
    assert exact


SPELLINGS = (("a", (1,)), ("b", (1, 2)), ("c", (2, 2, 1)), ("a", (3, 1)), ("b", (2, 2)))


def cuts(text: tuple[int, ...]) -> list[list[str]]:
    """All ways to read a text as words."""
    if not text:
        return [[]]
    return [
        [word, *rest]
        for word, spelling in SPELLINGS
        if text[: len(spelling)] == spelling
        for rest in cuts(text[len(spelling) :])
    ]


def with_lexicon(tmp_path: Path, rng: random.Random, order: int) -> tuple[LexiconLm, Ngrams]:
    ngrams = random_ngrams(rng, ["a", "b", "c"], order)
    path = tmp_path / "words.arpa"
    path.write_text(arpa(ngrams), encoding="utf-8")
    lines = (f"{word} {' '.join(map(str, spelling))}\n" for word, spelling in SPELLINGS)
    (tmp_path / "lexicon.txt").write_text("".join(lines), encoding="utf-8")
    symbols = {"1": 1, "2": 2, "3": 3}
    return LexiconLm.load(tmp_path / "lexicon.txt", path, symbols), ngrams


@pytest.mark.parametrize("seed", range(6))
def test_a_lexicon_makes_it_a_graph_of_words(tmp_path: Path, seed: int) -> None:
    """Every text of up to five tokens has the score of its best way into words, or no path."""
    rng = random.Random(seed)
    lm, ngrams = with_lexicon(tmp_path, rng, 1 + seed % 3)
    graph = token_graph(lm, 4, 0.5)
    assert int(graph.labels.min()) == -1 and not bool((graph.labels == 0).any())
    read = 0
    for size in range(6):
        for text in itertools.product((1, 2, 3), repeat=size):
            ways = [slow_best(ngrams, cut) for cut in cuts(text)]
            score = graph_score(graph, list(text))
            assert score == pytest.approx(0.5 * max(ways, default=-math.inf), abs=1e-4)
            assert score / 0.5 >= text_score(lm, text) - 1e-4 or not ways
            read += bool(ways)
    assert 20 < read < 364


def test_words_after_one_history_share_the_beginnings_of_their_chains(tmp_path: Path) -> None:
    """1, 2, 2 2, 3 and 3 1 begin words or are words: after one history each leads to one state
    inside a word at most, so that a beam of few states holds many words.
    """
    graph = token_graph(with_lexicon(tmp_path, random.Random(0), 2)[0], 4, 1.0)
    sources, targets, labels, _ = graph.arcs.values().t().tolist()
    into = [targets.count(state) for state in range(max(targets) + 1)]
    for source in set(sources):
        arcs = [(t, y) for s, t, y in zip(sources, targets, labels) if s == source]
        inside = [y for t, y in arcs if into[t] == 1 and t not in (0, source)]
        assert len(inside) == len(set(inside))


def test_a_lexicon_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    lm, _ = with_lexicon(tmp_path, random.Random(0), 1)
    with pytest.raises(ValueError, match="must be 1 to 2, but reach from 1 to 3: it was made for"):
        token_graph(lm, 3, 1.0)
