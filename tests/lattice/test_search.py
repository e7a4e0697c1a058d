"""Offline search equals the full topology, greedy search, and itself whatever the batch."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

k2 = pytest.importorskip("k2")

from dualasr_lib.decoding.greedy import greedy  # noqa: E402
from dualasr_lib.lattice.ctc_lattice import ctc_lattices  # noqa: E402
from dualasr_lib.lattice.search import Path, SearchConfig, one_best  # noqa: E402
from dualasr_lib.lattice.topology import dense, full_topology  # noqa: E402

MakeLogProbs = Callable[..., Tensor]


def slow_best(log_probs: Tensor) -> Path:
    """k2's search of one utterance in the whole vocabulary's topology."""
    frames = dense(log_probs[None], torch.tensor([len(log_probs)]))
    topology = full_topology(log_probs.shape[1])
    lattice = k2.intersect_dense_pruned(topology, frames, 20.0, 8.0, 30, 10000)
    best = k2.shortest_path(lattice, use_double_scores=True)
    score = best.get_tot_scores(use_double_scores=True, log_semiring=False)
    emitted = [(label, i) for i, label in enumerate(best.aux_labels.tolist()) if label > 0]
    return Path(tuple(t for t, _ in emitted), tuple(i for _, i in emitted), float(score[0]))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("spread", [1.0, 5.0])
def test_best_path_is_that_of_the_full_topology(
    make_log_probs: MakeLogProbs, seed: int, spread: float
) -> None:
    log_probs = torch.stack([make_log_probs(20, 40, seed * 10 + i, spread) for i in range(3)])
    lens = torch.tensor([20, 13, 1])
    for rows, size, path in zip(
        log_probs, lens.tolist(), one_best(log_probs, lens, SearchConfig()).paths
    ):
        expected = slow_best(rows[:size])
        assert path[:2] == expected[:2]
        assert path.score == pytest.approx(expected.score, abs=1e-6)


@pytest.mark.parametrize(
    "config", [SearchConfig(), SearchConfig(active_threshold=0.5, max_tokens=2)]
)
def test_best_path_is_the_greedy_one(make_log_probs: MakeLogProbs, config: SearchConfig) -> None:
    log_probs = torch.stack([make_log_probs(40, 30, seed) for seed in range(8)])
    lens = torch.tensor([3, 40, 0, 17, 40, 1, 29, 0])  # any order
    result = one_best(log_probs, lens, config)
    assert result.fallbacks == 0
    for path, expected in zip(result.paths, greedy(log_probs, lens)):
        assert path.tokens == expected.tokens
        assert path.frames == expected.frames
        assert path.score == pytest.approx(expected.score, abs=1e-4)
    assert any(a == b for path in result.paths for a, b in zip(path.tokens, path.tokens[1:]))


def test_batch_changes_nothing(make_log_probs: MakeLogProbs) -> None:
    log_probs = torch.stack([make_log_probs(30, 15, seed) for seed in range(4)])
    lens = torch.tensor([12, 30, 5, 30])
    log_probs[0, 12:] = math.nan  # padding
    together = one_best(log_probs, lens, SearchConfig()).paths
    for row in range(4):
        alone = one_best(log_probs[row : row + 1, : lens[row]], lens[row : row + 1], SearchConfig())
        assert alone.paths == together[row : row + 1]


def test_blank_only_and_empty() -> None:
    log_probs = torch.full((2, 5, 7), -20.0)
    log_probs[:, :, 0] = 0.0
    paths = one_best(log_probs, torch.tensor([5, 0]), SearchConfig()).paths
    assert paths == [Path((), (), 0.0), Path((), (), 0.0)]
    assert one_best(log_probs[:, :0], torch.tensor([0, 0]), SearchConfig()).paths == paths
    assert one_best(log_probs[:0], lens=torch.zeros(0).long(), config=SearchConfig()).paths == []


def test_minus_infinity_is_no_path() -> None:
    log_probs = torch.tensor([[[0.1, 0.9, 0.0], [0.2, 0.0, 0.8]]]).log()
    assert one_best(log_probs, torch.tensor([2]), SearchConfig()).paths[0].tokens == (1, 2)


def test_large_vocabulary_is_cheap(make_log_probs: MakeLogProbs) -> None:
    log_probs = make_log_probs(60, 3000, 1, spread=2.0)[None]
    config = SearchConfig(max_tokens=80)
    found = ctc_lattices(log_probs, torch.tensor([60]), config)
    assert found.num_arcs <= 2 * 80 + 59 * 80**2
    expected = greedy(log_probs, torch.tensor([60]))[0]
    assert one_best(log_probs, torch.tensor([60]), config).paths[0].tokens == expected.tokens


@pytest.mark.parametrize(
    "options",
    [{"output_beam": 0.0}, {"output_beam": -1.0}, {"output_beam": math.nan}]
    + [{"active_threshold": 1.5}, {"active_threshold": -0.1}, {"max_tokens": 0}],
)
def test_refused_options(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        SearchConfig(**options)  # type: ignore[arg-type]
