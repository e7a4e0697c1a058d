"""Greedy search: against a plain definition, and online against offline for any chunking."""

import random
from itertools import groupby

import pytest
import torch
from torch import Tensor

from dualasr_lib.decoding.greedy import GreedyPath, OnlineGreedy, greedy, greedy_search


def slow_greedy(log_probs: Tensor) -> GreedyPath:
    best = [max(range(len(row)), key=row.__getitem__) for row in log_probs.tolist()]
    runs = [
        (token, [frame for frame, _ in run])
        for token, run in groupby(enumerate(best), lambda x: x[1])
    ]
    kept = [(token, frames[0]) for token, frames in runs if token]
    score = sum(max(row) for row in log_probs.tolist())
    return GreedyPath(tuple(t for t, _ in kept), tuple(f for _, f in kept), score)


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
    assert greedy_search(log_probs, lens) == (paths, 0)


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
    assert search.finish(search.open()) == GreedyPath((), (), 0.0)


def test_refusal() -> None:
    with pytest.raises(ValueError, match="0 for 1"):
        OnlineGreedy().step([], [OnlineGreedy().open()])
