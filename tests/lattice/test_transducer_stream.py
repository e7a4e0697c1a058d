"""k2's search of a transducer on streams: chunks change nothing, and what segments may change."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("k2")

import k2
from test_transducer_search import joiner

from dualasr_lib.lattice.options import FastBeamStreamConfig
from dualasr_lib.lattice.path import Path
from dualasr_lib.lattice.transducer_search import Join, fast_beam
from dualasr_lib.lattice.transducer_stream import FastBeamState, OnlineFastBeam

V = 5
LONG = FastBeamStreamConfig(segment_frames=1000)
SHORT = FastBeamStreamConfig(segment_frames=20)


def talk(size: int, seed: int) -> Tensor:
    return torch.randn(size, 3, generator=torch.Generator().manual_seed(seed))


def online(
    join: Join, config: FastBeamStreamConfig = LONG, graph: Any = None, vocab_size: int = V
) -> OnlineFastBeam:
    return OnlineFastBeam(join, 3, vocab_size, 2, config, graph)


def listened(
    search: OnlineFastBeam, rows: Tensor, chunks: Sequence[int]
) -> tuple[Path, list[tuple[Path, int]]]:
    """The final path, and each partial one with what of it is committed."""
    state, shown, start = search.open(), list[tuple[Path, int]](), 0
    while start < len(rows):
        size = chunks[len(shown) % len(chunks)]
        (step,) = search.step([rows[start : start + size]], [state])
        state, start = step.state, start + size
        shown.append((step.partial, step.num_committed))
    return search.finish(state), shown


@pytest.mark.parametrize("seed", range(3))
def test_a_stream_of_one_segment_is_the_whole_search(seed: int) -> None:
    join, rows = joiner(V, seed), talk(23, seed)
    (whole,) = fast_beam([rows], join, V, 2, LONG)
    for chunks in ([1], [3], [8], [2, 0, 7], [23]):
        path, shown = listened(online(join), rows, chunks)
        assert path == whole
        assert shown[-1][0].frames == tuple(f for f in whole.frames if f < 22)


@pytest.mark.parametrize("seed", range(3))
def test_chunks_do_not_matter_where_segments_end_and_what_is_committed_stays(seed: int) -> None:
    join, rows = joiner(V, seed), talk(131, seed)
    (whole,) = fast_beam([rows], join, V, 2, LONG)
    first, _ = listened(online(join, SHORT), rows, [131])
    for chunks in ([1], [8], [5, 0, 11]):
        path, shown = listened(online(join, SHORT), rows, chunks)
        assert path == first
        assert shown[-1][1] > 10
        for partial, count in shown:
            assert partial.tokens[:count] == path.tokens[:count]
            assert partial.frames[:count] == path.frames[:count]
    assert list(path.frames) == sorted(set(path.frames))
    agreed = len(set(zip(path.tokens, path.frames)) & set(zip(whole.tokens, whole.frames)))
    assert agreed > 0.9 * len(whole.tokens)


def test_pauses_make_segments_exact() -> None:
    """The first token after each pause is heard as "the last but one again": a cut there that
    forgot the tokens before it would be seen.
    """

    def join(frames: Tensor, contexts: Tensor) -> Tensor:
        speaks, named = frames[:, 0] > 0, frames[:, 1].long()
        told = torch.where(named > 0, named, contexts[:, 0].clamp(min=1))
        scores = torch.full((len(frames), V), -9.0)
        scores[~speaks, 0] = 0.0
        scores[speaks] = scores[speaks].scatter(1, told[speaks, None], 0.0)
        return scores.log_softmax(dim=1)

    rows = torch.zeros(400, 3)
    for start in range(0, 400, 16):
        rows[[start, start + 3, start + 6], 0] = 1.0
        rows[start + 3, 1], rows[start + 6, 1] = start // 16 % 4 + 1, start // 32 % 4 + 1
    (whole,) = fast_beam([rows], join, V, 2, LONG)
    assert len(whole.tokens) == 75 and len(set(whole.tokens)) == 4
    segments = FastBeamStreamConfig(segment_frames=40)
    path, shown = listened(online(join, segments), rows, [8])
    assert path.tokens == whole.tokens and path.frames == whole.frames
    assert path.score == pytest.approx(whole.score, abs=1e-3)
    assert shown[-1][1] > 60


def test_streams_of_any_ages_share_a_step() -> None:
    """Each says what it says alone; the state of each stays small."""
    join = joiner(V, 7)
    search, rows = online(join, SHORT), [talk(size, size) for size in (90, 40, 17)]
    alone = [listened(search, each, [6])[0] for each in rows]
    states, heard = dict[int, FastBeamState](), [0, 0, 0]
    for tick in range(40):
        now = [i for i in range(3) if tick >= 4 * i and heard[i] < len(rows[i])]
        for i in now:
            states.setdefault(i, search.open())
        chunks = [rows[i][heard[i] : heard[i] + 6] for i in now]
        for i, step in zip(now, search.step(chunks, [states[i] for i in now])):
            states[i], heard[i] = step.state, heard[i] + 6
            assert len(step.state.frames) < 20
    assert [search.finish(states[i]) for i in range(3)] == alone
    assert search.step([], []) == []


def test_an_older_state_can_be_gone_on_from() -> None:
    """Also after its stream has ended."""
    join, rows = joiner(V, 3), talk(12, 3)
    search = online(join)
    (early,) = search.step([rows[:5]], [search.open()])
    (late,) = search.step([rows[5:]], [early.state])
    found = search.finish(late.state)
    assert search.finish(late.state) == found
    (again,) = search.step([rows[5:]], [early.state])
    assert again.partial == late.partial and search.finish(again.state) == found


def test_a_stream_without_frames_says_nothing() -> None:
    search = online(joiner(V, 0))
    (step,) = search.step([talk(0, 0)], [search.open()])
    assert step.partial == search.finish(step.state) == Path((), (), 0.0)


def test_frames_that_do_not_fit_or_are_not_finite_are_refused() -> None:
    search, bad = online(joiner(V, 0)), talk(4, 0)
    bad[2, 1] = torch.nan
    for rows in (bad, torch.zeros(2, 4)):
        with pytest.raises(ValueError, match=r"must be finite and \(frames, 3\), but"):
            search.step([rows], [search.open()])


def test_the_end_of_a_graph_counts() -> None:
    """Two tokens and no more; a stream that ends before them shows what it has."""
    graph = k2.arc_sort(k2.Fsa.from_str("0 1 1 -0.5\n1 2 2 -0.5\n2 3 -1 -0.5\n3"))
    join = joiner(V, 1)
    search = online(join, LONG, graph)
    for seed in range(4):
        rows = talk(6, seed)
        (whole,) = fast_beam([rows], join, V, 2, LONG, graph)
        path, _ = listened(search, rows, [2])
        assert path == whole and path.tokens == (1, 2)
    path, _ = listened(search, talk(1, 0), [1])
    assert path.tokens in ((), (1,))


def test_what_cannot_be_is_said() -> None:
    join = joiner(V, 0)
    with pytest.raises(ValueError, match="must be tokens below 5, but reach from -1 to 5"):
        online(join, graph=k2.trivial_graph(V))
    epsilon = k2.Fsa.from_str("0 1 0 0.0\n1 2 -1 0.0\n2")
    with pytest.raises(ValueError, match="must have no epsilon arcs, but has 1"):
        online(join, graph=epsilon)
    with pytest.raises(ValueError, match="`segment_frames` must be at least 16 frames, but is 3"):
        FastBeamStreamConfig(segment_frames=3)
