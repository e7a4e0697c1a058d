"""Scores of many texts at once against one text at a time, slowly."""

import math
from typing import get_args

import pytest
import torch
from slow_transducer import slow_total
from torch import Tensor

from dualasr_lib.model.transducer.full_sum import Band, Hypotheses, score_texts
from dualasr_lib.model.transducer.network import Transducer
from dualasr_lib.model.transducer.recursion import Topology
from dualasr_lib.model.transducer.settings import TransducerConfig

TOPOLOGIES = get_args(Topology)
LENS = torch.tensor([9, 5, 0, 1])


def model() -> Transducer:
    torch.manual_seed(0)
    return Transducer(6, 11, TransducerConfig(dim=8, joiner_dim=12)).double()


def frames(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3.0 * torch.randn(4, 9, 6, generator=generator, dtype=torch.float64)


def hypotheses(seed: int, context: int = 2) -> Hypotheses:
    """Variants of one text per utterance, in mixed order, padded with -1: repeats, empty ones,
    equal ones.
    """
    generator = torch.Generator().manual_seed(seed)
    rows, owner = [], []
    for n in range(4):
        text = torch.randint(1, 11, (6,), generator=generator).tolist()
        variants = [text, text, text[:3], [], [text[0]] * 4, [*text[:2], 5, *text[3:]], text[1:]]
        rows += variants
        owner += [n] * len(variants)
    order = torch.randperm(len(rows), generator=generator).tolist()
    lens = torch.tensor([len(rows[i]) for i in order])
    tokens = torch.tensor([rows[i] + [-1] * (6 - len(rows[i])) for i in order])
    return Hypotheses(tokens, lens, torch.tensor([owner[i] for i in order]))


def slow_score(
    transducer: Transducer, h: Tensor, text: list[int], topology: str, allowed: Tensor | None
) -> float:
    """One text; `allowed` (T, W) bool, cells of a band."""
    states = transducer.prediction(torch.tensor([text], dtype=torch.int64))[0]
    encoder, state = transducer.joiner.encoder(h), transducer.joiner.prediction(states)
    log_probs = transducer.joiner(encoder[:, None], state[None]).log_softmax(dim=2)
    windows = None if allowed is None else [set(row.nonzero()[:, 0].tolist()) for row in allowed]
    total = float(slow_total(log_probs, text, topology, windows=windows))
    return -math.inf if total < -1e20 else total


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("seed", range(2))
def test_equals_one_text_at_a_time(seed: int, topology: Topology) -> None:
    transducer, h, texts = model(), frames(seed), hypotheses(seed)
    scores = score_texts(transducer, h, LENS, texts, topology)
    assert scores.dtype == torch.float32
    impossible = 0
    for i, n in enumerate(texts.owner.tolist()):
        text = texts.tokens[i, : int(texts.lens[i])].tolist()
        expected = slow_score(transducer, h[n, : int(LENS[n])], text, topology, None)
        assert float(scores[i]) == pytest.approx(expected, rel=1e-6, abs=1e-6)
        impossible += math.isinf(expected)
    assert 0 < impossible < len(scores)


@pytest.mark.parametrize("width", [0, 1, 2, 20])
def test_band_leaves_out_what_lies_outside(width: int) -> None:
    transducer, h, texts = model(), frames(), hypotheses(0)
    said = torch.tensor([[0, 1, 1, 2, 3, 4, 4, 5, 6], [0, 1, 2, 3, 3, 3, 3, 3, 3]])
    said = torch.cat([said, torch.zeros(2, 9).long()])
    scores = score_texts(transducer, h, LENS, texts, band=Band(said, width))
    whole = score_texts(transducer, h, LENS, texts)
    finite = 0
    for i, n in enumerate(texts.owner.tolist()):
        size, length = int(texts.lens[i]), int(LENS[n])
        last = int(said[n, length - 1]) if length else 0
        allowed = torch.zeros(length, size + 1, dtype=torch.bool)
        for t in range(length):
            centre = float(said[n, t]) + (size - last) * (t + 1) / length
            for u in range(size + 1):
                allowed[t, u] = abs(u - centre) <= width + 0.5
        text = texts.tokens[i, :size].tolist()
        expected = slow_score(transducer, h[n, :length], text, "regular", allowed)
        assert float(scores[i]) == pytest.approx(expected, rel=1e-6, abs=1e-6)
        assert scores[i] <= whole[i] + 1e-6
        finite += math.isfinite(expected)
    assert finite > 5 or width == 0
    if width == 20:
        assert torch.equal(scores, whole)


def test_shared_cells_are_computed_once() -> None:
    transducer, h, texts = model(), frames(), hypotheses(1)
    rows: list[int] = []
    transducer.joiner.output.register_forward_hook(lambda _m, x, _y: rows.append(len(x[0])))
    score_texts(transducer, h, LENS, texts)
    apart = int((LENS[texts.owner] * (texts.lens + 1)).sum())
    distinct = {
        (n, t, *([0, 0, *texts.tokens[i].tolist()][u : u + 2]))
        for i, n in enumerate(texts.owner.tolist())
        for t in range(int(LENS[n]))
        for u in range(int(texts.lens[i]) + 1)
    }
    assert sum(rows) == len(distinct) < apart / 2


def test_padding_and_company_change_nothing() -> None:
    transducer, h, texts = model(), frames(), hypotheses(2)
    expected = score_texts(transducer, h, LENS, texts)
    dirty = h.clone()
    for n in range(4):
        dirty[n, int(LENS[n]) :] = torch.nan
    assert torch.equal(score_texts(transducer, dirty, LENS, texts), expected)
    for i in range(len(expected)):
        one = Hypotheses(*(x[i : i + 1] for x in texts))
        single = score_texts(transducer, h, LENS, one)
        torch.testing.assert_close(single[0], expected[i], rtol=1e-6, atol=1e-6)


def test_none_at_all() -> None:
    none = Hypotheses(torch.zeros(0, 3).long(), torch.zeros(0).long(), torch.zeros(0).long())
    assert score_texts(model(), frames(), LENS, none).shape == (0,)
