"""Topologies: which tokens stay, what restriction does to the numbers, and what log-probs are
refused.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

k2 = pytest.importorskip("k2")

from dualasr_lib.lattice.topology import (  # noqa: E402
    active_tokens,
    check_log_probs,
    full_topology,
    restrict,
)


def emits(topology: object, frames: list[int]) -> list[int]:
    """What a topology writes for one token per frame."""
    lattice = k2.intersect(topology, k2.linear_fsa([frames]), treat_epsilons_specially=False)
    best = k2.shortest_path(k2.connect(lattice), use_double_scores=True)
    return [label for label in best.aux_labels.tolist() if label > 0]


@pytest.mark.parametrize(
    ("frames", "tokens"),
    [([1, 1], [1]), ([1, 0, 1], [1, 1]), ([0, 2, 2, 1, 0], [2, 1]), ([0, 0], [])],
)
def test_full_topology_is_the_standard_one(frames: list[int], tokens: list[int]) -> None:
    topology = full_topology(3)
    assert topology.num_arcs == 3 * 4
    assert emits(topology, frames) == tokens


def test_active_tokens_compare_with_each_frames_best() -> None:
    log_probs = torch.tensor([[0.9, 0.1, 1e-6, 1e-9], [1e-9, 1e-9, 0.7, 0.2]]).log()
    assert active_tokens(log_probs, 0.5, 10).tolist() == [0, 2]
    assert active_tokens(log_probs, 0.11, 10).tolist() == [0, 1, 2, 3]
    assert active_tokens(log_probs[1:], 0.5, 10).tolist() == [0, 2]  # blank always stays


def test_the_bound_never_drops_a_best_token() -> None:
    log_probs = torch.eye(6)[1:].mul(9).log_softmax(dim=1)  # tokens 1..5 are best once each
    assert active_tokens(log_probs, 1e-9, 2).tolist() == [0, 1, 2, 3, 4, 5]
    one_best = torch.tensor([[0.0, 3.0, 9.0, 1.0, 2.0]]).log_softmax(dim=1)
    assert active_tokens(one_best, 1e-9, 3).tolist() == [0, 1, 2]  # best, blank, nearest


def test_restriction_keeps_columns(make_log_probs: Callable[..., Tensor]) -> None:
    log_probs = torch.stack([make_log_probs(9, 20, seed) for seed in (1, 2)])
    lens = torch.tensor([9, 4])
    restricted = restrict(log_probs, lens, math.exp(-8.0), 500)
    assert restricted.graphs.shape[0] == 2
    for row, tokens in enumerate(restricted.tokens):
        assert tokens[0] == 0
        assert list(tokens) == sorted(tokens)
        narrow = restricted.log_probs[row]
        assert torch.equal(narrow[:, : len(tokens)], log_probs[row][:, list(tokens)])
        assert narrow[:, len(tokens) :].eq(-math.inf).all()


def test_frames_beyond_the_length_decide_nothing(make_log_probs: Callable[..., Tensor]) -> None:
    log_probs = make_log_probs(9, 20, 1)[None]
    changed = log_probs.clone()
    changed[:, 5:] = math.nan
    lens = torch.tensor([5])
    assert restrict(log_probs, lens, 0.01, 500).tokens == restrict(changed, lens, 0.01, 500).tokens


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_refused_values(make_log_probs: Callable[..., Tensor], value: float) -> None:
    log_probs = torch.stack([make_log_probs(5, 4, seed) for seed in (1, 2)])
    log_probs[1, 3] = value
    check_log_probs(log_probs, torch.tensor([5, 3]))  # beyond the length: fine
    with pytest.raises(ValueError, match="frame 3 of utterance 1"):
        check_log_probs(log_probs, torch.tensor([5, 4]))


def test_refused_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        check_log_probs(torch.zeros(2, 3), torch.tensor([3, 3]))
    with pytest.raises(ValueError, match=r"0\.\.3"):
        check_log_probs(torch.zeros(2, 3, 4), torch.tensor([3, 4]))
