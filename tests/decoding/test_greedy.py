"""Greedy search: against a plain definition, and online against offline for any chunking."""

import math
import random
from itertools import groupby

import pytest
import torch
from torch import Tensor

from dualasr_lib.decoding.greedy import GreedyState, OnlineGreedy, greedy, greedy_search
from dualasr_lib.decoding.hypothesis import TokenPath
from dualasr_lib.decoding.offline import Heard, Searched


def slow_greedy(log_probs: Tensor) -> TokenPath:
    best = [max(range(len(row)), key=row.__getitem__) for row in log_probs.tolist()]
    runs = [
        (token, [frame for frame, _ in run])
        for token, run in groupby(enumerate(best), lambda x: x[1])
    ]
    kept = [(token, frames[0]) for token, frames in runs if token]
    score = sum(max(row) for row in log_probs.tolist())
    return TokenPath(tuple(t for t, _ in kept), tuple(f for _, f in kept), score)


def random_log_probs(num_frames: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_frames, 4, generator=generator).log_softmax(dim=1)


def test_batch() -> None:
    log_probs = torch.stack([random_log_probs(30, seed) for seed in range(5)])
    lens = torch.tensor([30, 0, 7, 1, 22])
    paths = greedy(log_probs, lens)
    for row, length, path in zip(log_probs, lens.tolist(), paths):
        expected = slow_greedy(row[:length])
        assert path[:2] == expected[:2]
        assert path.score == pytest.approx(expected.score, abs=1e-5)
    assert greedy_search(Heard({"ctc": log_probs}, lens)) == Searched(paths)


@pytest.mark.parametrize("seed", range(10))
def test_online_is_offline_for_any_chunking(seed: int) -> None:
    rng = random.Random(seed)
    log_probs = random_log_probs(40, seed)
    search = OnlineGreedy()
    states = [search.open(), search.open()]
    position = 0
    while position < 40:
        size = rng.randrange(6)
        frames = log_probs[position : position + size]
        steps = search.step([frames, frames], states)
        states = [step.state for step in steps]
        position += size
        expected = greedy(log_probs[None], torch.tensor([min(position, 40)]))[0]
        assert steps[1].partial[:2] == expected[:2]
        assert steps[1].num_committed == len(expected.tokens)
    path = search.finish(states[0])
    assert path.score == pytest.approx(expected.score, abs=1e-4)
    assert search.finish(search.open()) == TokenPath((), (), 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_streams_join_wait_and_leave(seed: int) -> None:
    rng = random.Random(seed)
    search = OnlineGreedy()
    streams = [random_log_probs(rng.randrange(1, 40), seed * 10 + i) for i in range(6)]
    states: list[GreedyState] = [search.open() for _ in streams]
    while any(state.num_frames < len(rows) for state, rows in zip(states, streams)):
        chosen = [i for i in range(6) if rng.random() < 0.5]
        new = [streams[i][states[i].num_frames :][: rng.randrange(7)] for i in chosen]
        for i, step in zip(chosen, search.step(new, [states[i] for i in chosen])):
            states[i] = step.state
    for rows, state in zip(streams, states):
        expected = slow_greedy(rows)
        assert search.finish(state)[:2] == expected[:2]
        assert search.finish(state).score == pytest.approx(expected.score, abs=1e-4)


def test_a_state_is_a_value() -> None:
    search, log_probs = OnlineGreedy(), random_log_probs(30, 3)
    before = search.step([log_probs[:12]], [search.open()])[0].state
    first = search.step([log_probs[12:]], [before])[0].partial
    search.step([log_probs[:9]], [before])
    assert search.step([log_probs[12:]], [before])[0].partial == first
    assert before.path[:2] == slow_greedy(log_probs[:12])[:2]


def test_refusal() -> None:
    with pytest.raises(ValueError, match="0 for 1"):
        OnlineGreedy().step([], [OnlineGreedy().open()])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_bad_frame_is_named(value: float) -> None:
    search, good = OnlineGreedy(), random_log_probs(9, 1)
    bad = good.clone()
    bad[2] = value
    state = search.step([good], [search.open()])[0].state
    with pytest.raises(ValueError, match="frame 11 has NaN"):
        search.step([bad], [state])
    with pytest.raises(ValueError, match="frame 2 has NaN"):
        greedy_search(Heard({"ctc": torch.stack([good, bad])}, torch.tensor([9, 9])))
    beyond = greedy_search(Heard({"ctc": torch.stack([good, bad])}, torch.tensor([9, 2])))
    assert beyond.paths[1][:2] == slow_greedy(bad[:2])[:2]
