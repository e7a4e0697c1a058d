"""The graph of an n-gram: every text's score is that of the best way to back off."""

import math
import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("k2")

from test_ngram import Ngrams, arpa, random_ngrams

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
    """The best path's, arc by arc."""
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
    return max(states.values())


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
