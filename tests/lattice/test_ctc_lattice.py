"""Lattices in closed form are those that k2 finds with the full topology, arc by arc."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

k2 = pytest.importorskip("k2")

from dualasr_lib.lattice.ctc_lattice import ctc_lattices  # noqa: E402
from dualasr_lib.lattice.path import SearchConfig  # noqa: E402
from dualasr_lib.lattice.topology import dense, full_topology  # noqa: E402

MakeLogProbs = Callable[..., Tensor]


def slow_lattice(log_probs: Tensor, output_beam: float) -> Any:
    """k2's search of one utterance (S, V) in the whole topology, nothing pruned on the way."""
    vocab_size = log_probs.shape[1]
    return k2.intersect_dense_pruned(
        full_topology(vocab_size),
        dense(log_probs[None], torch.tensor([len(log_probs)])),
        search_beam=1e4,
        output_beam=output_beam,
        min_active_states=vocab_size + 1,
        max_active_states=10000,
    )[0]


def arcs(fsa: Any) -> list[tuple[int, int, float]]:
    """(label, aux label, score) of every arc, sorted."""
    return sorted(zip(fsa.labels.tolist(), fsa.aux_labels.tolist(), fsa.scores.tolist()))


def total(fsa: Any, log_semiring: bool) -> float:
    vec = k2.create_fsa_vec([fsa])
    return float(vec.get_tot_scores(use_double_scores=True, log_semiring=log_semiring)[0])


def assert_same(fsa: Any, reference: Any) -> None:
    assert reference.num_arcs > 0
    assert arcs(fsa) == arcs(reference)
    for log_semiring in (False, True):
        expected = total(reference, log_semiring)
        assert total(fsa, log_semiring) == pytest.approx(expected, abs=1e-6, rel=1e-9)


def assert_equivalent(fsa: Any, reference: Any) -> None:
    """Random paths of one have the same score in the other, as labels and as texts."""
    ours, theirs = k2.Fsa(fsa.arcs), k2.Fsa(reference.arcs)
    same = k2.is_rand_equivalent(ours, theirs, log_semiring=False, treat_epsilons_specially=False)
    assert same
    texts = [k2.Fsa(k2.invert(each).arcs) for each in (fsa, reference)]
    assert k2.is_rand_equivalent(*texts, log_semiring=False, delta=1e-3)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spread", [0.7, 2.0, 6.0])
@pytest.mark.parametrize("output_beam", [0.5, 4.0, 8.0])
def test_arcs_and_scores_are_those_of_the_full_topology(
    make_log_probs: MakeLogProbs, seed: int, spread: float, output_beam: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    lens = torch.tensor([1, 2, 13, 33, 64, 1])[torch.randperm(6, generator=generator)]
    log_probs = torch.stack([make_log_probs(64, 14, seed * 10 + i, spread) for i in range(6)])
    found = ctc_lattices(log_probs, lens, SearchConfig(output_beam=output_beam))
    assert found.shape[0] == 6
    for index, size in enumerate(lens.tolist()):
        assert_same(found[index], slow_lattice(log_probs[index, :size], output_beam))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("num_frames", "output_beam"), [(1, 8.0), (5, 3.0), (12, 1.0)])
def test_paths_are_those_of_the_full_topology(
    make_log_probs: MakeLogProbs, seed: int, num_frames: int, output_beam: float
) -> None:
    log_probs = make_log_probs(num_frames, 6, seed, 1.5)
    config = SearchConfig(output_beam=output_beam)
    found = ctc_lattices(log_probs[None], torch.tensor([num_frames]), config)[0]
    assert_equivalent(found, slow_lattice(log_probs, output_beam))


def test_a_token_that_cannot_be_said(make_log_probs: MakeLogProbs) -> None:
    log_probs = make_log_probs(20, 8, 3, 1.0)
    log_probs[:, 4] = -math.inf
    log_probs[7, 0] = log_probs[7, 2] = -math.inf
    found = ctc_lattices(log_probs[None], torch.tensor([20]), SearchConfig())[0]
    reference = slow_lattice(log_probs, 8.0)
    assert_same(found, reference)
    assert 4 not in found.labels.tolist()
    assert 2 in found.labels.tolist()


def test_hopeless_tokens_cost_nothing(make_log_probs: MakeLogProbs) -> None:
    """The same arcs in the same order, however large the vocabulary."""
    log_probs = torch.stack([make_log_probs(30, 12, seed, 1.0) for seed in range(3)])
    lens = torch.tensor([30, 1, 17])
    padded = torch.cat([log_probs, torch.full((3, 30, 3000), -200.0)], dim=2)
    narrow, wide = (ctc_lattices(x, lens, SearchConfig()) for x in (log_probs, padded))
    assert narrow.num_arcs > 1000
    assert torch.equal(narrow.arcs.values(), wide.arcs.values())
    assert torch.equal(narrow.aux_labels, wide.aux_labels)


@pytest.mark.parametrize("limit", [{"max_tokens": 3}, {"max_tokens": 1}, {"active_threshold": 0.2}])
def test_limits_leave_a_part_with_the_best_path(
    make_log_probs: MakeLogProbs, limit: dict[str, Any]
) -> None:
    for seed in range(10):
        log_probs = make_log_probs(25, 12, seed, 1.0)[None]
        lens = torch.tensor([25])
        whole = ctc_lattices(log_probs, lens, SearchConfig())[0]
        part = ctc_lattices(log_probs, lens, SearchConfig(**limit))[0]
        assert total(part, log_semiring=False) == total(whole, log_semiring=False)
        assert part.num_arcs < whole.num_arcs
        assert set(arcs(part)) < set(arcs(whole))
        if "max_tokens" in limit:
            most = limit["max_tokens"]
            assert part.num_arcs <= 2 * most + 24 * most**2
            assert max(_states_per_frame(part, 25)) == most


def _states_per_frame(fsa: Any, num_frames: int) -> list[int]:
    """Labels that can be said at each frame."""
    frame = [0] * (int(fsa.arcs.values()[:, :2].max()) + 1)
    labels: list[set[int]] = [set() for _ in range(num_frames)]
    for source, target, label, _ in fsa.arcs.values().tolist():
        if label >= 0:
            labels[frame[source]].add(label)
            frame[target] = frame[source] + 1
    return [len(said) for said in labels]


def test_equal_tokens_are_all_kept() -> None:
    """In a frame where all tokens are equally likely none is left out for its place."""
    log_probs = torch.full((1, 3, 5), math.log(0.2))
    found = ctc_lattices(log_probs, torch.tensor([3]), SearchConfig(output_beam=0.5))[0]
    assert found.num_arcs == 5 + 2 * 25 + 5
    assert_same(found, slow_lattice(log_probs[0], 0.5))


def test_no_gradient_and_no_change_of_the_input(make_log_probs: MakeLogProbs) -> None:
    log_probs = make_log_probs(9, 5, 1)[None].requires_grad_()
    before = log_probs.detach().clone()
    lattice = ctc_lattices(log_probs, torch.tensor([9]), SearchConfig())
    assert not lattice.scores.requires_grad
    assert torch.equal(log_probs.detach(), before)
