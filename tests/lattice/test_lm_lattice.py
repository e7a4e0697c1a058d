"""Rescored lattices against brute force over all their paths, and against `k2.intersect`, for three
kinds of language model.
"""

import math
from itertools import pairwise, product
from pathlib import Path as File

import numpy as np
import pytest
import torch
from torch import Tensor

k2 = pytest.importorskip("k2")

from slow_search import (  # noqa: E402
    LMS,
    Labelling,
    TableLm,
    intersected,
    labellings,
    lm_graph,
    make_lm,
    random_log_probs,
)

from dualasr_lib.lattice.ctc_lattice import ctc_lattices  # noqa: E402
from dualasr_lib.lattice.lm import (  # noqa: E402
    Floats,
    Integers,
    LanguageModel,
    LmArcs,
    text_score,
)
from dualasr_lib.lattice.lm_lattice import LmLattice, lm_lattices  # noqa: E402
from dualasr_lib.lattice.options import LmLatticeConfig  # noqa: E402
from dualasr_lib.lattice.path import SearchConfig  # noqa: E402
from dualasr_lib.lattice.search import one_best  # noqa: E402

SCALES = (0.0, 0.1, 0.5, 1.0, 3.0)


def lattice_of(
    log_probs: Tensor, lm: LanguageModel, beam: float = 8.0, max_active: int = 1000
) -> LmLattice:
    """That of one utterance (S, V)."""
    config = LmLatticeConfig(lattice=SearchConfig(output_beam=beam), max_active=max_active)
    found = lm_lattices(log_probs[None], torch.tensor([len(log_probs)]), config, lm)
    assert found.fallbacks == 0
    lattice = found.results[0]
    assert lattice is not None
    return lattice


def in_lattice(log_probs: Tensor, beam: float) -> list[Labelling]:
    """The paths of the lattice: every step is within the beam."""
    short = (log_probs.amax(dim=1, keepdim=True) - log_probs).double().tolist()

    def inside(labels: tuple[int, ...]) -> bool:
        costs = [row[label] for row, label in zip(short, labels)]
        return max(costs) <= beam and all(a + b <= beam for a, b in pairwise(costs))

    return [path for path in labellings(log_probs) if inside(path.labels)]


def slow_scores(paths: list[Labelling], lm: LanguageModel) -> dict[tuple[int, ...], float]:
    return {tokens: text_score(lm, tokens) for tokens in {path.tokens for path in paths}}


def slow_best(
    paths: list[Labelling], scores: dict[tuple[int, ...], float], scale: float
) -> tuple[Labelling, float]:
    possible = [path for path in paths if math.isfinite(scores[path.tokens])]
    best = max(possible, key=lambda path: path.score + scale * scores[path.tokens])
    return best, best.score + scale * scores[best.tokens]


@pytest.mark.parametrize("kind", LMS)
@pytest.mark.parametrize("beam", [2.0, 100.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_best_path_for_any_scale(kind: str, beam: float, seed: int, tmp_path: File) -> None:
    lm = make_lm(kind, tmp_path, seed)
    log_probs = random_log_probs(6, 4, seed, spread=1.5)
    lattice = lattice_of(log_probs, lm, beam)
    paths = in_lattice(log_probs, beam)
    scores = slow_scores(paths, lm)
    for scale in SCALES:
        expected, score = slow_best(paths, scores, scale)
        best = lattice.best(scale)
        assert best.tokens == expected.tokens
        assert best.frames == expected.frames
        assert best.score == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("kind", LMS)
@pytest.mark.parametrize("beam", [3.0, 100.0])
def test_equals_the_intersection_in_k2(kind: str, beam: float, tmp_path: File) -> None:
    """The same arcs (k2 numbers states otherwise) and the same paths, on longer utterances."""
    for seed in range(4):
        lm = make_lm(kind, tmp_path, seed)
        log_probs = random_log_probs(40, 4, seed)
        ours = lattice_of(log_probs, lm, beam)
        plain = ctc_lattices(log_probs[None], torch.tensor([40]), SearchConfig(output_beam=beam))
        theirs = LmLattice(intersected(plain[0], lm))
        assert theirs.fsa.num_arcs > 40
        assert ours.fsa.shape == theirs.fsa.shape
        assert arcs_of(ours) == pytest.approx(arcs_of(theirs), abs=1e-5)
        for scale in SCALES:
            expected, found = theirs.best(scale), ours.best(scale)
            assert (found.tokens, found.frames) == (expected.tokens, expected.frames)
            assert found.score == pytest.approx(expected.score, abs=1e-3)


def arcs_of(lattice: LmLattice) -> Floats:
    """(arcs, 3) label, ctc and lm of all, sorted."""
    fsa = lattice.fsa
    columns = np.stack([fsa.labels.numpy(), fsa.ctc.numpy(), fsa.lm.numpy()]).astype(np.float64)
    return columns[:, np.lexsort(np.round(columns, 4))].T


class Asked:
    """A language model that notes how much it is asked, and whose states are huge numbers."""

    def __init__(self, lm: LanguageModel) -> None:
        self._lm = lm
        self._far = 10**17
        self.start = lm.start + self._far
        self.counts: list[int] = []

    def advance(self, states: Integers, tokens: Integers) -> LmArcs:
        assert states.dtype == tokens.dtype == np.int64
        assert (tokens > 0).all()
        self.counts.append(len(tokens))
        arcs = self._lm.advance(states - self._far, tokens)
        return arcs._replace(target=arcs.target + self._far)

    def final(self, states: Integers) -> Floats:
        return self._lm.final(states - self._far)


def test_the_model_is_asked_once_a_frame_about_the_tokens_of_the_lattice(tmp_path: File) -> None:
    """Whatever V and whatever the numbers of its states are."""
    lm = make_lm("ngram", tmp_path)
    log_probs = random_log_probs(30, 4, 7)
    wide = torch.cat([log_probs, torch.full((30, 2000), -40.0)], dim=1)
    plain = lattice_of(log_probs, lm)
    counts = []
    for rows in (log_probs, wide):
        asked = Asked(lm)
        lattice = lattice_of(rows, asked)
        assert [lattice.best(scale) for scale in SCALES] == [plain.best(scale) for scale in SCALES]
        assert len(asked.counts) <= 31
        counts.append(asked.counts)
    assert counts[0] == counts[1]


class Small(TableLm):
    """A model that has memory for a few questions at once."""

    def advance(self, states: Integers, tokens: Integers) -> LmArcs:
        if len(states) > 4:
            raise MemoryError
        return super().advance(states, tokens)


def test_without_memory_less_is_searched_and_counted() -> None:
    log_probs = random_log_probs(10, 4, 0)[None]
    config = LmLatticeConfig(lattice=SearchConfig(output_beam=8.0))
    found = lm_lattices(log_probs, torch.tensor([10]), config, Small(4, 1, forbidden=0.0))
    assert found.fallbacks > 0
    assert found.results[0] is not None


def test_a_bound_keeps_the_pairs_with_the_best_ctc_scores(tmp_path: File) -> None:
    lm = make_lm("ngram", tmp_path)
    log_probs = random_log_probs(40, 4, 3)
    for max_active in (1, 2, 5):
        lattice = lattice_of(log_probs, lm, beam=100.0, max_active=max_active)
        assert lattice.fsa.shape[0] <= 2 + 40 * max_active
        greedy = lattice.best(0.0)
        path = one_best(log_probs[None], torch.tensor([40]), SearchConfig()).paths[0]
        assert (greedy.tokens, greedy.frames) == (path.tokens, path.frames)
        for scale in SCALES:  # what is left has its true score
            best = lattice.best(scale)
            assert best.score >= path.score + scale * text_score(lm, path.tokens) - 1e-3
    assert lattice.best(3.0).tokens != greedy.tokens


def test_a_bound_that_is_not_reached_changes_nothing(tmp_path: File) -> None:
    lm = make_lm("lexicon", tmp_path)
    log_probs = random_log_probs(25, 4, 2)
    free, bound = (lattice_of(log_probs, lm, 100.0, pairs) for pairs in (10**9, 100))
    assert (arcs_of(bound) == arcs_of(free)).all()
    with pytest.raises(ValueError, match="max_active"):
        LmLatticeConfig(max_active=0)


@pytest.mark.parametrize("kind", LMS)
def test_the_graph_accepts_what_the_model_scores(kind: str, tmp_path: File) -> None:
    lm = make_lm(kind, tmp_path)
    graph = lm_graph(lm, np.array([1, 2, 3]))
    texts = [list(text) for size in range(5) for text in product((1, 2, 3), repeat=size)]
    finite = 0
    for text in texts:
        linear = k2.arc_sort(k2.linear_fsa(text))
        linear.scores = linear.scores + 0.0
        both = k2.intersect(graph, linear, treat_epsilons_specially=False)
        vec = k2.create_fsa_vec([k2.connect(both)])
        score = float(vec.get_tot_scores(use_double_scores=True, log_semiring=False)[0])
        expected = text_score(lm, text)
        assert score == pytest.approx(expected, abs=1e-4)
        finite += math.isfinite(expected)
    assert 10 < finite <= len(texts) == 121


def test_the_graph_is_of_the_asked_tokens_only(tmp_path: File) -> None:
    lm = make_lm("ngram", tmp_path)
    whole, part = lm_graph(lm, np.array([1, 2, 3])), lm_graph(lm, np.array([2]))
    assert part.num_arcs < whole.num_arcs
    assert set(part.labels.tolist()) == {2, -1}
    nothing = lm_graph(lm, np.array([], dtype=np.int64))  # a lattice of blanks: the text is ()
    assert nothing.labels.tolist() == [-1]
    assert nothing.scores.tolist() == [pytest.approx(text_score(lm, ()))]


def test_scale_zero_is_the_ctc_path(tmp_path: File) -> None:
    log_probs = torch.stack([random_log_probs(20, 4, seed) for seed in range(5)])
    lens = torch.tensor([20, 3, 0, 1, 11])
    log_probs[1, 3:] = math.nan  # padding
    lm = make_lm("ngram", tmp_path)
    found = lm_lattices(log_probs, lens, LmLatticeConfig(), lm)
    assert found.fallbacks == 0
    assert found.results[2] is None
    for lattice, path in zip(found.results, one_best(log_probs, lens, SearchConfig()).paths):
        if lattice is not None:
            best = lattice.best(0.0)
            assert (best.tokens, best.frames) == (path.tokens, path.frames)
            assert best.score == pytest.approx(path.score, abs=1e-4)


def test_a_lattice_can_be_asked_again(tmp_path: File) -> None:
    lm = make_lm("ngram", tmp_path)
    lattice = lattice_of(random_log_probs(8, 4, 3), lm)
    first = [lattice.best(scale) for scale in SCALES]
    assert [lattice.best(scale) for scale in reversed(SCALES)] == first[::-1]
    assert len({path.tokens for path in first}) > 1


def test_silence_says_nothing(tmp_path: File) -> None:
    log_probs = torch.full((5, 4), -20.0)
    log_probs[:, 0] = 0.0
    lm = make_lm("ngram", tmp_path)
    lattice = lattice_of(log_probs, lm)
    assert lattice.best(1.0)[:3] == ((), (), pytest.approx(text_score(lm, ()), abs=1e-5))


class Unending(TableLm):
    """A model whose texts end after token 3 only."""

    def final(self, states: Integers) -> Floats:
        return np.where(states == 3, -0.5, -np.inf)


def test_endings_that_cannot_be_reached_are_left_out() -> None:
    lm = Unending(4, 0, forbidden=0.0)
    log_probs = random_log_probs(5, 4, 1, spread=1.0)
    lattice = lattice_of(log_probs, lm, beam=50.0)
    paths = list(labellings(log_probs))
    expected, score = slow_best(paths, slow_scores(paths, lm), 0.7)
    assert expected.tokens[-1] == 3
    best = lattice.best(0.7)
    assert (best.tokens, best.frames) == (expected.tokens, expected.frames)
    assert best.score == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize(("labels", "score"), [([1, 0, 0], -20.0), ([1, 3, 1], -40.0)])
def test_a_lattice_without_a_readable_text(tmp_path: File, labels: list[int], score: float) -> None:
    """`a` is no word, and none goes on with `c` behind it: the likeliest text of words is said."""
    log_probs = torch.full((3, 4), -20.0)
    log_probs[range(3), labels] = 0.0
    lm = make_lm("lexicon", tmp_path)
    for scale in (0.0, 0.5):
        best = lattice_of(log_probs, lm).best(scale)
        assert math.isfinite(text_score(lm, best.tokens))
        assert best.score == score
