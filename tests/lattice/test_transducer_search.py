"""k2's search of a transducer against an exhaustive one, and the graphs that it refuses."""

from pathlib import Path as File
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("k2")

import k2
from test_ngram import SMALL

from dualasr_lib.lattice.lm import text_score
from dualasr_lib.lattice.ngram import NgramLm
from dualasr_lib.lattice.options import FastBeamConfig
from dualasr_lib.lattice.path import Path
from dualasr_lib.lattice.token_graph import token_graph
from dualasr_lib.lattice.transducer_search import (
    Join,
    check_graph,
    fast_beam,
    fast_beam_lattices,
    fast_beam_lists,
    fast_beam_paths,
)

WIDE = FastBeamConfig(beam=80.0, max_states=1000, max_contexts=200)
Text = tuple[int, ...]


def joiner(vocab_size: int, seed: int) -> Join:
    """Outcomes that depend on the frame (D = 3) and on both tokens of the context."""
    generator = torch.Generator().manual_seed(seed)
    acoustic = 2.0 * torch.randn(3, vocab_size, generator=generator)
    language = torch.randn(vocab_size, vocab_size, vocab_size, generator=generator)

    def join(frames: Tensor, contexts: Tensor) -> Tensor:
        return (frames @ acoustic + language[contexts[:, 0], contexts[:, 1]]).log_softmax(dim=1)

    return join


def exhaustive(frames: Tensor, join: Join, lm: NgramLm | None, scale: float) -> Path:
    """The best of all alignments of all texts, one token per frame."""
    best: dict[Text, tuple[float, Text]] = {(): (0.0, ())}
    for frame, row in enumerate(frames):
        following: dict[Text, tuple[float, Text]] = {}
        for text, (score, when) in best.items():
            context = torch.tensor([(0, 0, *text)[-2:]])
            for token, more in enumerate(join(row[None], context)[0].tolist()):
                longer = (*text, token) if token else text
                new = score + more, (*when, frame) if token else when
                following[longer] = max(new, following.get(longer, new))
        best = following
    if lm is not None:
        best = {t: (s + scale * text_score(lm, t), when) for t, (s, when) in best.items()}
    text, (score, when) = max(best.items(), key=lambda item: item[1][0])
    return Path(text, when, score)


def search(
    frames: list[Tensor], join: Join, vocab_size: int, graph: Any = None,
    config: FastBeamConfig = WIDE,
) -> list[Path | None]:  # fmt: skip
    lattice = fast_beam_lattices(frames, join, vocab_size, 2, config, graph)
    return fast_beam_paths(lattice)


@pytest.mark.parametrize("seed", range(5))
def test_it_finds_the_best_path_to_the_last_frame(seed: int) -> None:
    """In a batch of different lengths, one of them nothing; also where the last frame says
    something, which k2 alone would lose.
    """
    generator = torch.Generator().manual_seed(seed)
    frames = [torch.randn(size, 3, generator=generator) for size in (6, 0, 3, 1, 7)]
    join, ends = joiner(4, seed), 0
    for path, rows in zip(search(frames, join, 4), frames):
        expected = exhaustive(rows, join, None, 0.0)
        assert path[:2] == expected[:2]
        assert path.score == pytest.approx(expected.score, abs=1e-4)
        ends += bool(path.frames) and path.frames[-1] == len(rows) - 1
    assert ends


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_a_graph_counts_with_its_scale_and_its_end(tmp_path: File, scale: float) -> None:
    path = tmp_path / "lm.arpa"
    path.write_text(SMALL, encoding="utf-8")
    lm = NgramLm.load(path, {"<blk>": 0, "a": 1, "b": 2})
    graph = token_graph(lm, 3, scale)
    changed = 0
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        frames = [torch.randn(size, 3, generator=generator) for size in (5, 2, 6)]
        join = joiner(3, seed)
        plain = search(frames, join, 3)
        for path_, rows, without in zip(search(frames, join, 3, graph), frames, plain):
            expected = exhaustive(rows, join, lm, scale)
            assert path_.tokens == expected.tokens
            assert path_.score == pytest.approx(expected.score, abs=1e-3)
            changed += path_.tokens != without.tokens
    assert changed


def test_a_token_beyond_the_beam_is_lost_so_graphs_have_a_wide_one() -> None:
    """What k2 does: a cost of 9 nats is lost with a beam of 8, though all else is worse."""
    arcs = "0 0 2 0.0\n0 1 1 -9.0\n1 1 1 0.0\n1 2 -1 0.0\n2"
    graph = k2.arc_sort(k2.Fsa.from_str(arcs))
    outcomes = torch.tensor([[-30.0, 0.0, -30.0], [0.0, -30.0, -30.0]])

    def join(frames: Tensor, contexts: Tensor) -> Tensor:
        return outcomes[frames[:, 0].long()]

    frames = [torch.arange(2.0)[:, None]]
    (found,) = search(frames, join, 3, graph, FastBeamConfig())
    assert found.tokens == (1,) and found.score == pytest.approx(-9.0)
    assert search(frames, join, 3, graph, FastBeamConfig(beam=8.0)) == [None]
    narrow = FastBeamConfig(beam=3.0)  # searched again with 6, 12
    assert fast_beam(frames * 2, join, 3, 2, narrow, graph) == [found, found]
    assert fast_beam_lists(frames * 2, join, 3, 2, narrow, graph, 0).fallbacks == 4
    assert fast_beam_lists(frames * 2, join, 3, 2, FastBeamConfig(), graph, 0).fallbacks == 0


def test_a_graph_that_no_text_can_follow_is_said() -> None:
    """Two tokens must be said in one frame."""
    graph = k2.arc_sort(k2.Fsa.from_str("0 1 1 0.0\n1 2 2 0.0\n2 3 -1 0.0\n3"))

    def join(frames: Tensor, contexts: Tensor) -> Tensor:
        return torch.zeros(len(frames), 3)

    with pytest.raises(ValueError, match="no text of the graph fits 1 utterances"):
        fast_beam([torch.zeros(1, 1)], join, 3, 2, FastBeamConfig(), graph)


def test_graphs_that_would_be_misread_are_refused() -> None:
    good = k2.trivial_graph(4)
    check_graph(good, 5)
    with pytest.raises(ValueError, match="must be tokens below 4, but reach from -1 to 4: it was"):
        check_graph(good, 4)
    epsilons = k2.Fsa.from_str("0 1 0 -0.5\n1 2 3 0.0\n2 3 -1 0.0\n3")
    with pytest.raises(ValueError, match="no epsilon arcs, but has 1 of label 0"):
        check_graph(epsilons, 5)
    with pytest.raises(ValueError, match="one acceptor with 2 axes, but has 3"):
        check_graph(k2.create_fsa_vec([good, good]), 5)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"beam": 0.0}, "`beam` must be positive"),
        ({"max_states": 0}, "`max_states` must be at least 1"),
        ({"max_contexts": 0}, "`max_contexts` must be at least 1"),
    ],
)
def test_options_that_cannot_be(options: dict[str, float], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        FastBeamConfig(**options)
