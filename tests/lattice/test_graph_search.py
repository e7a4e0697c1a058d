"""Beam search with a language model against the composed graph in k2, rescored lattices, and itself
for any chunking.
"""

import math
import random
from pathlib import Path as File
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

k2 = pytest.importorskip("k2")

from slow_search import (  # noqa: E402
    LMS,
    TableLm,
    labellings,
    lm_graph,
    make_lm,
    random_log_probs,
)

from dualasr_lib.lattice.graph_search import GraphSearch, GraphState  # noqa: E402
from dualasr_lib.lattice.lm import LanguageModel, text_score  # noqa: E402
from dualasr_lib.lattice.lm_lattice import lm_lattices  # noqa: E402
from dualasr_lib.lattice.options import GraphConfig, LmLatticeConfig  # noqa: E402
from dualasr_lib.lattice.path import Path, SearchConfig  # noqa: E402
from dualasr_lib.lattice.search import one_best  # noqa: E402
from dualasr_lib.lattice.topology import dense, full_topology  # noqa: E402

WIDE = {"beam": 1e3, "token_beam": 1e3, "max_active": 100000, "max_tokens": 1000}


def wide(lm: LanguageModel, lm_scale: float) -> GraphSearch:
    return GraphSearch(lm, GraphConfig(**WIDE), lm_scale)  # type: ignore[arg-type]


def composed(lm: LanguageModel, lm_scale: float) -> Any:
    """The whole graph H (CTC) with G (language model), as an HLG decoder has it."""
    grammar = lm_graph(lm, np.array([1, 2, 3]))
    grammar.scores = grammar.scores * lm_scale
    topology = k2.arc_sort(k2.invert(full_topology(4)))
    return k2.arc_sort(k2.connect(k2.compose(k2.invert(topology), k2.arc_sort(grammar))))


def slow_best(graph: Any, log_probs: Tensor) -> tuple[tuple[int, ...], float]:
    """Tokens and score of the best path of `graph`, found by k2 without pruning."""
    frames = dense(log_probs[None], torch.tensor([len(log_probs)]))
    lattice = k2.intersect_dense_pruned(graph, frames, 1e4, 1e4, 1, 100000)
    best = k2.shortest_path(lattice, use_double_scores=True)
    score = best.get_tot_scores(use_double_scores=True, log_semiring=False)
    return tuple(t for t in best.aux_labels.tolist() if t > 0), float(score[0])


@pytest.mark.parametrize("kind", LMS)
@pytest.mark.parametrize("lm_scale", [0.0, 0.4, 1.0, 3.0])
def test_equals_k2_on_the_composed_graph(kind: str, lm_scale: float, tmp_path: File) -> None:
    for seed in range(6):
        lm = make_lm(kind, tmp_path, seed)
        graph = composed(lm, lm_scale)
        for num_frames in (1, 2, 7, 25):
            log_probs = random_log_probs(num_frames, 4, seed, spread=1.5)
            tokens, score = slow_best(graph, log_probs)
            if math.isinf(score):  # no text can end; another test says what happens then
                continue
            found = wide(lm, lm_scale).whole(log_probs)
            assert found.tokens == tokens
            assert found.score == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("kind", LMS)
@pytest.mark.parametrize("lm_scale", [0.2, 1.0])
def test_equals_the_rescored_lattice(kind: str, lm_scale: float, tmp_path: File) -> None:
    """Frames too, which the lattice reads from its arcs and the search from its hypotheses."""
    log_probs = torch.stack([random_log_probs(30, 4, seed) for seed in range(8)])
    lens = torch.tensor([30, 29, 12, 5, 2, 17, 8, 30])
    lm = make_lm(kind, tmp_path)
    config = LmLatticeConfig(lattice=SearchConfig(output_beam=1e3))
    lattices = lm_lattices(log_probs, lens, config, lm).results
    for rows, size, lattice in zip(log_probs, lens.tolist(), lattices):
        assert lattice is not None
        expected = lattice.best(lm_scale)
        found = wide(lm, lm_scale).whole(rows[:size])
        assert found[:2] == expected[:2]
        assert found.score == pytest.approx(expected.score, abs=1e-3)


@pytest.mark.parametrize("kind", LMS)
def test_equals_brute_force(kind: str, tmp_path: File) -> None:
    for seed in range(3):
        lm = make_lm(kind, tmp_path, seed)
        log_probs = random_log_probs(5, 4, seed, spread=1.0)
        paths = list(labellings(log_probs))
        lm_scores = {tokens: text_score(lm, tokens) for tokens in {path.tokens for path in paths}}
        best = max(paths, key=lambda path: path.score + 0.6 * lm_scores[path.tokens])
        found = wide(lm, 0.6).whole(log_probs)
        assert (found.tokens, found.frames) == (best.tokens, best.frames)
        assert found.score == pytest.approx(best.score + 0.6 * lm_scores[best.tokens], abs=1e-5)


def test_without_weight_it_is_the_best_ctc_path(tmp_path: File) -> None:
    """With the default beams, and with beams that leave next to nothing."""
    lm = make_lm("ngram", tmp_path)
    log_probs = torch.stack([random_log_probs(40, 4, seed) for seed in range(5)])
    lens = torch.full((5,), 40)
    paths = one_best(log_probs, lens, SearchConfig()).paths
    narrow = {"beam": 0.1, "token_beam": 0.1, "max_active": 1, "max_tokens": 1}
    for options in ({}, narrow):
        search = GraphSearch(lm, GraphConfig(**options), lm_scale=0.0)  # type: ignore[arg-type]
        for rows, path in zip(log_probs, paths):
            found = search.whole(rows)
            assert found[:2] == path[:2]
            assert found.score == pytest.approx(path.score, abs=1e-3)


def feed(search: GraphSearch, log_probs: Tensor, sizes: list[int]) -> GraphState:
    state = search.open()
    for frames in log_probs.split(sizes):
        state = search.step([frames], [state])[0].state
    return state


def random_sizes(rng: random.Random, total: int) -> list[int]:
    sizes: list[int] = []
    while sum(sizes) < total:
        sizes.append(rng.randrange(0, min(9, total - sum(sizes)) + 1))
    return sizes


@pytest.mark.parametrize("kind", LMS)
@pytest.mark.parametrize("options", [{}, {"beam": 3.0, "max_active": 5, "max_tokens": 2}])
def test_chunks_change_nothing_to_the_bit(
    kind: str, options: dict[str, Any], tmp_path: File
) -> None:
    search = GraphSearch(make_lm(kind, tmp_path), GraphConfig(**options))
    for seed in range(5):
        log_probs = random_log_probs(50, 4, seed)
        whole = search.whole(log_probs)
        rng = random.Random(seed)
        for sizes in ([1] * 50, [8] * 6 + [2], random_sizes(rng, 50), random_sizes(rng, 50)):
            assert search.finish(feed(search, log_probs, sizes)) == whole


@pytest.mark.parametrize("kind", LMS)
def test_streams_join_wait_and_leave(kind: str, tmp_path: File) -> None:
    rng = random.Random(1)
    search = GraphSearch(make_lm(kind, tmp_path), GraphConfig())
    streams = [random_log_probs(rng.randrange(1, 40), 4, seed) for seed in range(6)]
    states: dict[int, GraphState] = {}
    position = [0] * 6
    while any(position[i] < len(streams[i]) for i in range(6)):
        chosen = [i for i in range(6) if position[i] < len(streams[i]) and rng.random() < 0.5]
        sizes = [rng.randrange(0, 7) for _ in chosen]
        frames = [streams[i][position[i] : position[i] + n] for i, n in zip(chosen, sizes)]
        steps = search.step(frames, [states.get(i, search.open()) for i in chosen])
        for i, part, step in zip(chosen, frames, steps):
            position[i] += len(part)
            states[i] = step.state
    for i in range(6):
        assert search.finish(states[i]) == search.whole(streams[i])


@pytest.mark.parametrize("kind", LMS)
def test_committed_tokens_stay(kind: str, tmp_path: File) -> None:
    """They are the beginning of every later partial text, of the final one, and never fewer."""
    search = GraphSearch(make_lm(kind, tmp_path), GraphConfig(beam=6.0), lm_scale=1.0)
    moved = 0
    for seed in range(6):
        log_probs = random_log_probs(60, 4, seed, spread=3.0)
        state, committed = search.open(), Path((), (), 0.0)
        for frames in log_probs.split(3):
            step = search.step([frames], [state])[0]
            state, count = step.state, len(committed.tokens)
            assert step.num_committed >= count
            assert step.partial.tokens[:count] == committed.tokens
            assert step.partial.frames[:count] == committed.frames
            count = step.num_committed
            committed = Path(step.partial.tokens[:count], step.partial.frames[:count], 0.0)
            moved += count > 0
        final = search.finish(state)
        count = len(committed.tokens)
        assert (final.tokens[:count], final.frames[:count]) == committed[:2]
    assert moved > 20


def test_a_state_is_a_value(tmp_path: File) -> None:
    search = GraphSearch(make_lm("ngram", tmp_path), GraphConfig(), lm_scale=1.0)
    log_probs = random_log_probs(30, 4, 3)
    before = feed(search, log_probs[:12], [12])
    kept = (before.lm.copy(), before.last.copy(), before.score.copy(), before.traces)
    first = search.finish(search.step([log_probs[12:]], [before])[0].state)
    search.step([log_probs[:9]], [before])
    assert search.finish(search.step([log_probs[12:]], [before])[0].state) == first
    for column, old in zip(before, kept):
        assert np.array_equal(column, old) if isinstance(old, np.ndarray) else column == old


def test_a_state_is_bounded() -> None:
    """Hypotheses by `max_active`, and what they remember by what they do not share."""
    lm = TableLm(12, 0, forbidden=0.0)
    search = GraphSearch(lm, GraphConfig(max_active=17, beam=1e3))
    state = search.open()
    for seed in range(40):
        state = search.step([random_log_probs(10, 12, seed, spread=0.5)], [state])[0].state
        assert len(state.score) == len(state.lm) == len(state.last) == len(state.traces) <= 17
    assert len(state.score) == 17
    assert state.num_frames == 400
    assert (np.diff(state.score) <= 0).all()  # the best first
    keys = list(zip(state.lm.tolist(), state.last.tolist()))
    assert len(set(keys)) == 17  # one hypothesis per state of the graph
    nodes = {id(trace) for trace in _nodes(state)}
    longest = max(trace.depth for trace in state.traces if trace is not None)
    assert len(nodes) < longest + 17 * 50


def _nodes(state: GraphState) -> list[Any]:
    found = {}
    for trace in state.traces:
        while trace is not None and id(trace) not in found:
            found[id(trace)] = trace
            trace = trace.parent
    return list(found.values())


@pytest.mark.parametrize("lm_scale", [0.0, 0.3])
@pytest.mark.parametrize("kind", LMS)
def test_texts_that_a_stream_lists(kind: str, lm_scale: float, tmp_path: File) -> None:
    """Different ones that can end, the best first, which is the final one."""
    lm, most = make_lm(kind, tmp_path), 0
    search = GraphSearch(lm, GraphConfig(beam=30.0), lm_scale)
    for seed in range(5):
        state = feed(search, random_log_probs(12, 4, seed), [5, 7])
        listed = search.ranked(state)
        texts = [path.tokens for path in listed]
        assert listed[0] == search.finish(state)
        assert len(set(texts)) == len(texts) <= 10
        assert [path.score for path in listed] == sorted((p.score for p in listed), reverse=True)
        assert all(math.isfinite(text_score(lm, tokens)) for tokens in texts)
        most = max(most, len(texts))
    assert most > 3


def test_a_text_that_cannot_end_is_still_given(tmp_path: File) -> None:
    """In the middle of a word the best path counts, without an ending."""
    lm = make_lm("lexicon", tmp_path)
    log_probs = torch.full((2, 4), -9.0)
    log_probs[range(2), [1, 0]] = 0.0  # `a` only begins words
    search = GraphSearch(lm, GraphConfig(token_beam=1.0))
    step = search.step([log_probs], [search.open()])[0]
    assert step.partial[:3] == ((1,), (0,), 0.0)
    narrow = GraphSearch(lm, GraphConfig(token_beam=1.0, beam=2.0))
    assert narrow.whole(log_probs)[:3] == ((1,), (0,), 0.0)
    # The empty text may end, and a wide beam still has it.
    assert search.whole(log_probs).tokens == ()


def test_empty_and_silent_streams(tmp_path: File) -> None:
    lm = make_lm("ngram", tmp_path)
    search = GraphSearch(lm, GraphConfig(), lm_scale=0.5)
    expected = Path((), (), pytest.approx(0.5 * text_score(lm, ())))
    assert search.finish(search.open()) == expected
    nothing = search.step([torch.zeros(0, 4)], [search.open()])[0]
    assert nothing.partial[:3] == ((), (), 0.0)
    assert nothing.num_committed == 0
    silence = torch.full((40, 4), -30.0)
    silence[:, 0] = 0.0
    assert search.whole(silence) == expected


def test_a_token_across_chunks_counts_once(tmp_path: File) -> None:
    frames = [0, 1, 1, 0, 1, 1]
    log_probs = torch.full((6, 4), -30.0)
    log_probs[range(6), frames] = 0.0
    search = GraphSearch(make_lm("ngram", tmp_path), GraphConfig(), lm_scale=0.1)
    path = search.finish(feed(search, log_probs, [2, 2, 2]))
    assert (path.tokens, path.frames) == ((1, 1), (1, 4))


def test_a_model_that_forbids_everything_leaves_the_blanks(tmp_path: File) -> None:
    """Tokens of no word: the lexicon cannot read them."""
    log_probs = torch.full((4, 6), -9.0)
    log_probs[range(4), [5, 5, 0, 4]] = 0.0
    found = GraphSearch(make_lm("lexicon", tmp_path), GraphConfig()).whole(log_probs)
    assert found.tokens == ()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_bad_frame_is_named(value: float, tmp_path: File) -> None:
    search = GraphSearch(make_lm("ngram", tmp_path), GraphConfig())
    log_probs = random_log_probs(9, 4, 1)
    state = feed(search, log_probs, [4, 5])
    log_probs[2] = value
    with pytest.raises(ValueError, match="frame 2 has NaN"):
        search.whole(log_probs)
    with pytest.raises(ValueError, match="frame 11 has NaN"):
        search.step([log_probs], [state])


def test_refusals(tmp_path: File) -> None:
    search = GraphSearch(make_lm("ngram", tmp_path), GraphConfig())
    with pytest.raises(ValueError, match="2 for 1"):
        search.step([torch.zeros(1, 4)] * 2, [search.open()])
    for name in ("beam", "max_active", "token_beam", "max_tokens"):
        with pytest.raises(ValueError, match=name):
            GraphConfig(**{name: 0})  # type: ignore[arg-type]
    for lm_scale in (-0.1, math.nan):
        with pytest.raises(ValueError, match="lm_scale"):
            GraphSearch(make_lm("ngram", tmp_path), GraphConfig(), lm_scale)
