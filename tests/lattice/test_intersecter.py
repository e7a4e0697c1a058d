"""Online search without a language model, by k2 and by the best token of each frame: for any
chunking and company of streams both end where the offline search of k2 does.
"""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("k2")

from dualasr_lib.decoding.contract import OnlineSearch
from dualasr_lib.decoding.greedy import OnlineGreedy
from dualasr_lib.decoding.hypothesis import PathLike
from dualasr_lib.lattice.backend import new_stream_state, supported
from dualasr_lib.lattice.intersecter import OnlineIntersecter
from dualasr_lib.lattice.options import IntersecterConfig
from dualasr_lib.lattice.path import Path, SearchConfig
from dualasr_lib.lattice.search import one_best

MakeLogProbs = Callable[..., Tensor]
V = 9
ENGINES = ("intersecter", "greedy")


def offline(log_probs: Tensor) -> Path:
    return one_best(log_probs[None], torch.tensor([len(log_probs)]), SearchConfig()).paths[0]


def search(engine: str, segment_frames: int = 25) -> OnlineSearch:
    if engine == "greedy":
        return OnlineGreedy()
    return OnlineIntersecter(V, IntersecterConfig(segment_frames=segment_frames))


def feed(online: OnlineSearch, log_probs: Tensor, sizes: list[int]) -> Any:
    state = online.open()
    for frames in log_probs.split(sizes):
        state = online.step([frames], [state])[0].state
    return state


def _sizes(total: int, chunk: int) -> list[int]:
    """Chunks of `chunk` frames, the last one shorter."""
    return [min(chunk, total - start) for start in range(0, total, chunk)]


def assert_same(path: PathLike, expected: Path) -> None:
    assert path.tokens == expected.tokens
    assert path.frames == expected.frames
    assert path.score == pytest.approx(expected.score, abs=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("chunk", [1, 3, 8, 32])
@pytest.mark.parametrize("segment_frames", [1, 10, 1000])
def test_final_path_is_the_offline_one(
    make_log_probs: MakeLogProbs, engine: str, chunk: int, segment_frames: int
) -> None:
    online = search(engine, segment_frames)
    for seed in range(2):
        log_probs = make_log_probs(32, V, seed)
        state = feed(online, log_probs, _sizes(32, chunk))
        assert_same(online.finish(state), offline(log_probs))


@pytest.mark.parametrize("engine", ENGINES)
def test_every_partial_is_the_offline_path_so_far(
    make_log_probs: MakeLogProbs, engine: str
) -> None:
    log_probs = make_log_probs(60, V, 5)
    online = search(engine, 8)
    state = online.open()
    committed = 0
    for end in range(4, 61, 4):
        step = online.step([log_probs[end - 4 : end]], [state])[0]
        state = step.state
        expected = offline(log_probs[:end])
        assert_same(step.partial, expected)
        assert committed <= step.num_committed <= len(expected.tokens)
        committed = step.num_committed
        assert offline(log_probs).tokens[:committed] == step.partial.tokens[:committed]
    assert committed > 0  # on the way
    if engine == "intersecter":
        assert state.start > 0
        assert offline(log_probs).tokens[:committed] == state.committed.tokens


@pytest.mark.parametrize("engine", ENGINES)
def test_streams_join_wait_and_leave(make_log_probs: MakeLogProbs, engine: str) -> None:
    rng = random.Random(1)
    online = search(engine, 6)
    streams = [make_log_probs(rng.randrange(1, 40), V, seed) for seed in range(6)]
    states: dict[int, Any] = {}
    position = [0] * 6
    while any(position[i] < len(streams[i]) for i in range(6)):
        chosen = [i for i in range(6) if position[i] < len(streams[i]) and rng.random() < 0.5]
        sizes = [rng.randrange(0, 7) for _ in chosen]
        frames = [streams[i][position[i] : position[i] + n] for i, n in zip(chosen, sizes)]
        steps = online.step(frames, [states.get(i, online.open()) for i in chosen])
        for i, part, step in zip(chosen, frames, steps):
            position[i] += len(part)
            states[i] = step.state
    for i in range(6):
        assert_same(online.finish(states[i]), offline(streams[i]))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_state_is_a_value(make_log_probs: MakeLogProbs, engine: str) -> None:
    online = search(engine)
    log_probs = make_log_probs(30, V, 3)
    before = feed(online, log_probs[:12], [12])
    first = online.step([log_probs[12:]], [before])[0].partial
    online.step([log_probs[:9]], [before])
    assert online.step([log_probs[12:]], [before])[0].partial == first


@pytest.mark.parametrize("engine", ENGINES)
def test_empty_short_and_silent_streams(engine: str) -> None:
    online = search(engine, 5)
    empty = Path((), (), 0.0)
    assert online.finish(online.open()) == empty
    nothing = online.step([torch.zeros(0, V)], [online.open()])[0]
    assert nothing.partial == empty
    silence = torch.full((40, V), -30.0)
    silence[:, 0] = 0.0
    state = feed(online, silence, [8] * 5)
    assert online.finish(state) == empty
    assert state.num_frames == 40
    if engine == "intersecter":
        assert state.start == 40
    one_frame = torch.full((1, V), -30.0)
    one_frame[0, 4] = 0.0
    assert online.finish(feed(online, one_frame, [1])) == Path((4,), (0,), 0.0)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_token_across_chunks_counts_once(engine: str) -> None:
    frames = [0, 1, 1, 0, 1, 1]  # with chunks of 2, both runs of 1 straddle or touch a border
    log_probs = torch.full((6, V), -30.0)
    log_probs[range(6), frames] = 0.0
    path = search(engine, 1).finish(feed(search(engine, 1), log_probs, [2, 2, 2]))
    assert path.tokens == (1, 1)
    assert path.frames == (1, 4)


def test_memory_of_a_long_stream_is_flat(make_log_probs: MakeLogProbs) -> None:
    online = search("intersecter", 10)
    state = online.open()
    longest = 0
    for seed in range(40):
        state = online.step([make_log_probs(8, V, seed)], [state])[0].state
        longest = max(longest, state.num_frames - state.start)
    assert state.num_frames == 320
    assert longest < 80


def test_large_vocabularies() -> None:
    log_probs = torch.full((3, 4000), -30.0)
    log_probs[range(3), [0, 3999, 7]] = 0.0
    online = OnlineGreedy()
    assert online.finish(feed(online, log_probs, [2, 1])).tokens == (3999, 7)
    with pytest.raises(ValueError, match="max_vocab=512, but is 4000"):
        OnlineIntersecter(4000, IntersecterConfig())
    assert OnlineIntersecter(600, IntersecterConfig(max_vocab=600)).vocab_size == 600


@pytest.mark.parametrize("engine", ENGINES)
def test_refusals(make_log_probs: MakeLogProbs, engine: str) -> None:
    online = search(engine)
    with pytest.raises(ValueError, match="2 for 1"):
        online.step([make_log_probs(2, V, 0)] * 2, [online.open()])
    with pytest.raises(ValueError, match="frame 1"):
        online.step([torch.tensor([[0.0] * V, [torch.nan] * V])], [online.open()])


@pytest.mark.parametrize(
    "options",
    [{"segment_frames": 0}, {"search_beam": 0.0}, {"output_beam": -1.0}]
    + [{"min_active": 5, "max_active": 4}, {"min_active": 0, "max_active": 0}],
)
def test_refused_options(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        IntersecterConfig(**options)


def test_the_vocabulary_must_fit(make_log_probs: MakeLogProbs) -> None:
    online = search("intersecter")
    with pytest.raises(ValueError, match=r"\(S, 9\), but are \(2, 5\)"):
        online.step([make_log_probs(2, 5, 0)], [online.open()])


class OldK2:
    """k2 1.23.4: the state class cannot be made from Python."""

    class DecodeStateInfo:
        def __init__(self) -> None:
            raise TypeError("No constructor defined!")


class NewK2:
    """k2 >= 1.24.4."""

    class DecodeStateInfo:
        pass


def test_new_streams_under_both_apis() -> None:
    assert new_stream_state(OldK2) is None
    assert isinstance(new_stream_state(NewK2), NewK2.DecodeStateInfo)


def test_options_only_where_known() -> None:
    def old(graph: int) -> None: ...
    def new(graph: int, allow_partial: bool = False) -> None: ...

    assert supported(old, allow_partial=True) == {}
    assert supported(new, allow_partial=True) == {"allow_partial": True}
