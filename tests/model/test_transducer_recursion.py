"""The sum over alignments: against its definition, a slow forward algorithm, and gradcheck."""

import math
from typing import get_args

import pytest
import torch
from slow_transducer import enumerated, slow_total
from torch import Tensor

from dualasr_lib.model.transducer.recursion import (
    NEVER,
    Arcs,
    Topology,
    own_recursion,
    sum_alignments,
    with_delay_penalty,
    with_fast_emit,
)

TOPOLOGIES = get_args(Topology)
LENS, TOKEN_LENS = torch.tensor([5, 4, 3, 1, 0, 2, 0]), torch.tensor([3, 0, 3, 2, 0, 1, 1])


def draw(seed: int) -> tuple[Tensor, Tensor]:
    """Log-probs (N, T, W, V) in float64 and texts (N, U) of the lengths above."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2.0 * torch.randn(7, 5, 4, 6, generator=generator, dtype=torch.float64)
    tokens = torch.randint(1, 6, (7, 3), generator=generator)
    tokens[0] = tokens[0, 0]  # repeats
    return logits, tokens


def arcs_of(log_probs: Tensor, tokens: Tensor) -> Arcs:
    index = tokens[:, None, :, None].expand(-1, log_probs.shape[1], -1, -1)
    symbol = log_probs[:, :, :-1].gather(3, index)[..., 0]
    return Arcs(symbol, log_probs[..., 0])


def own_part(log_probs: Tensor, tokens: Tensor, n: int) -> tuple[Tensor, list[int]]:
    size = int(TOKEN_LENS[n])
    return log_probs[n, : int(LENS[n]), : size + 1], tokens[n, :size].tolist()


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_slow_reference_is_the_definition(topology: Topology) -> None:
    logits, tokens = draw(0)
    for n in range(7):
        log_probs, text = own_part(logits.log_softmax(dim=3), tokens, n)
        expected = enumerated(log_probs, text, topology)
        got = float(slow_total(log_probs, text, topology))
        if math.isinf(expected):
            assert got < -1e29
        else:
            assert got == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("delay_penalty", [0.0, 0.1])
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_slow_reference(seed: int, topology: Topology, delay_penalty: float) -> None:
    logits, tokens = draw(seed)
    logits.requires_grad_()
    arcs = with_delay_penalty(arcs_of(logits.log_softmax(dim=3), tokens), LENS, delay_penalty)
    summed = sum_alignments(arcs, LENS, TOKEN_LENS, topology)
    weights = torch.arange(1.0, 8.0)
    (gradient,) = torch.autograd.grad((summed.total * weights).sum(), logits, retain_graph=True)
    for n in range(7):
        x = logits[n].detach().clone().requires_grad_()
        log_probs, text = own_part(x.log_softmax(dim=2)[None].expand(7, -1, -1, -1), tokens, n)
        expected = slow_total(log_probs, text, topology, delay_penalty)
        assert bool(summed.impossible[n]) == bool(expected < -1e20)
        if expected < -1e20:
            assert float(summed.total[n]) == 0.0
            assert gradient[n].eq(0).all()
            continue
        assert float(summed.total[n]) == pytest.approx(float(expected), rel=1e-12, abs=1e-12)
        if expected.requires_grad:
            (by_x,) = torch.autograd.grad(expected, x)
            torch.testing.assert_close(gradient[n], (n + 1) * by_x, rtol=1e-9, atol=1e-12)
        else:
            assert gradient[n].eq(0).all()


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_gradcheck(topology: Topology) -> None:
    logits, tokens = draw(3)
    arcs = arcs_of(logits.log_softmax(dim=3), tokens)

    def totals(symbol: Tensor, blank: Tensor) -> Tensor:
        return sum_alignments(Arcs(symbol, blank), LENS, TOKEN_LENS, topology).total

    inputs = [x.detach().requires_grad_() for x in arcs]
    assert torch.autograd.gradcheck(totals, inputs)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_occupancies_are_the_gradient_and_probabilities(topology: Topology) -> None:
    logits, tokens = draw(4)
    arcs = Arcs(*(x.detach().requires_grad_() for x in arcs_of(logits.log_softmax(3), tokens)))
    summed = sum_alignments(arcs, LENS, TOKEN_LENS, topology)
    by_symbol, by_blank = torch.autograd.grad(summed.total.sum(), arcs)
    assert not summed.symbol.requires_grad
    torch.testing.assert_close(summed.symbol, by_symbol)
    if topology != "constrained":  # there, a symbol's score holds a blank's
        torch.testing.assert_close(summed.blank, by_blank)
    possible = (~summed.impossible).double()
    torch.testing.assert_close(summed.symbol.sum(dim=(1, 2)), TOKEN_LENS * possible)
    steps = LENS if topology == "regular" else (LENS - TOKEN_LENS)
    torch.testing.assert_close(summed.blank.sum(dim=(1, 2)), steps * possible)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("junk", [float("nan"), float("inf"), -float("inf"), 1e6])
def test_padding_and_batch_mates_change_nothing(topology: Topology, junk: float) -> None:
    logits, tokens = draw(5)
    arcs = arcs_of(logits.log_softmax(dim=3), tokens)
    dirty = Arcs(*(x.clone().requires_grad_() for x in arcs))
    for n in range(7):
        with torch.no_grad():
            dirty.symbol[n, int(LENS[n]) :] = junk
            dirty.blank[n, int(LENS[n]) :] = junk
            dirty.symbol[n, :, int(TOKEN_LENS[n]) :] = junk
            dirty.blank[n, :, int(TOKEN_LENS[n]) + 1 :] = junk
    clean = sum_alignments(arcs, LENS, TOKEN_LENS, topology)
    summed = sum_alignments(dirty, LENS, TOKEN_LENS, topology)
    for expected, got in zip(clean, summed):
        assert torch.equal(expected, got.detach())
    for gradient in torch.autograd.grad(summed.total.sum(), dirty):
        assert gradient.isfinite().all()
    for n in range(7):  # alone, without padding
        frames, said = int(LENS[n]), int(TOKEN_LENS[n])
        alone = Arcs(
            arcs.symbol[n : n + 1, :frames, :said], arcs.blank[n : n + 1, :frames, : said + 1]
        )
        single = sum_alignments(alone, LENS[n, None], TOKEN_LENS[n, None], topology)
        torch.testing.assert_close(single.total[0], clean.total[n], rtol=1e-13, atol=1e-13)
        assert torch.equal(single.impossible[0], clean.impossible[n])


def test_nan_of_a_valid_cell_is_not_hidden() -> None:
    logits, tokens = draw(6)
    arcs = arcs_of(logits.log_softmax(dim=3), tokens)
    arcs.blank[2, 1, 1] = torch.nan
    total = sum_alignments(arcs, LENS, TOKEN_LENS).total
    assert total.isnan().tolist() == [n == 2 for n in range(7)]


def test_long_utterances_keep_their_digits() -> None:
    """A minute: thousands of nats. Float32 arcs give the total of the same numbers in float64."""
    generator = torch.Generator().manual_seed(0)
    frames, said = 1500, 300
    arcs = Arcs(
        *(
            torch.randn(1, frames, w, generator=generator).sub_(4.0).requires_grad_()
            for w in (said, said + 1)
        )
    )
    lens, token_lens = torch.tensor([frames]), torch.tensor([said])
    summed = sum_alignments(arcs, lens, token_lens)
    torch.testing.assert_close(summed.symbol.sum(dim=1)[0], torch.ones(said).double())
    torch.testing.assert_close(summed.blank.sum(dim=2)[0], torch.ones(frames).double())
    torch.testing.assert_close(
        summed.symbol.sum(), torch.tensor(300.0).double(), rtol=1e-12, atol=0
    )


def test_fast_emit_scales_the_gradient_of_symbols_only() -> None:
    logits, tokens = draw(7)
    arcs = Arcs(*(x.detach().requires_grad_() for x in arcs_of(logits.log_softmax(3), tokens)))
    plain = sum_alignments(arcs, LENS, TOKEN_LENS)
    eager = sum_alignments(with_fast_emit(arcs, 0.25), LENS, TOKEN_LENS)
    assert torch.equal(plain.total, eager.total)
    symbol, blank = torch.autograd.grad(plain.total.sum(), arcs)
    faster = torch.autograd.grad(eager.total.sum(), arcs)
    torch.testing.assert_close(faster[0], 1.25 * symbol)
    assert torch.equal(faster[1], blank)


@pytest.mark.parametrize("moves_on", [False, True])
@pytest.mark.parametrize(("frames", "said"), [(0, 0), (0, 2), (3, 0), (1, 1)])
def test_smallest_shapes(moves_on: bool, frames: int, said: int) -> None:
    symbol = torch.zeros(2, frames, said, dtype=torch.float64)
    blank = torch.zeros(2, frames, said + 1, dtype=torch.float64)
    lens, token_lens = torch.full((2,), frames), torch.full((2,), said)
    total, symbols, blanks = own_recursion(symbol, blank, lens, token_lens, moves_on)
    assert symbols.shape == symbol.shape
    assert blanks.shape == blank.shape
    if frames == 0 and said:
        assert (total < NEVER / 2).all()
    else:
        assert total.tolist() == [0.0, 0.0]


def test_without_gradient_occupancies_are_there_too() -> None:
    logits, tokens = draw(8)
    with torch.no_grad():
        summed = sum_alignments(arcs_of(logits.log_softmax(dim=3), tokens), LENS, TOKEN_LENS)
    assert float(summed.symbol.sum()) == pytest.approx(float(TOKEN_LENS[~summed.impossible].sum()))
