"""The standard topology, arcs and log-probs in k2's form, and what log-probs are refused."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

k2 = pytest.importorskip("k2")

from dualasr_lib.lattice.topology import (  # noqa: E402
    check_log_probs,
    dense,
    fsa_of_arcs,
    full_topology,
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


def test_arcs_become_an_fsa() -> None:
    fsa = fsa_of_arcs(
        source=torch.tensor([0, 0, 1, 2]),
        target=torch.tensor([1, 2, 3, 3]),
        label=torch.tensor([7, 0, -1, -1]),
        score=torch.tensor([-0.1, -2.5, 0.0, -1e-30], dtype=torch.float64),
    )
    assert fsa.arcs.values()[:, :3].tolist() == [[0, 1, 7], [0, 2, 0], [1, 3, -1], [2, 3, -1]]
    assert torch.equal(fsa.scores, torch.tensor([-0.1, -2.5, 0.0, -1e-30]))
    best = k2.shortest_path(k2.create_fsa_vec([fsa]), use_double_scores=True)
    assert best.labels.tolist() == [7, -1]


def test_dense_takes_each_utterances_frames(make_log_probs: Callable[..., Tensor]) -> None:
    """What lies beyond a length is not read."""
    log_probs = torch.stack([make_log_probs(9, 4, seed) for seed in (1, 2)])
    log_probs[1, 5:] = math.nan
    topology = full_topology(4)
    lattice = k2.intersect_dense_pruned(
        topology, dense(log_probs, torch.tensor([9, 5])), 1e3, 1e3, 5, 1000
    )
    totals = lattice.get_tot_scores(use_double_scores=True, log_semiring=False)
    expected = [log_probs[0].amax(dim=1).sum(), log_probs[1, :5].amax(dim=1).sum()]
    assert totals.tolist() == pytest.approx([float(x) for x in expected], abs=1e-5)


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
