"""The pruned transducer loss of a batch against a slow reference, and what must not change it."""

import itertools
from typing import get_args

import pytest
import torch
from slow_transducer import additive_logits, joint_logits, slow_total
from torch import Tensor
from transducer_cases import Batch, cut, draw_batch, leaves, view_of

from dualasr_lib.core.config import from_dict
from dualasr_lib.model.transducer.loss import (
    AS_IT_COMES,
    Early,
    TransducerLosses,
    has_no_path,
    transducer_losses,
)
from dualasr_lib.model.transducer.recursion import Topology
from dualasr_lib.model.transducer.settings import TransducerLossConfig

TOPOLOGIES = get_args(Topology)


def config_of(
    topology: Topology = "regular", prune_range: int = 3, share: float = 0.25
) -> TransducerLossConfig:
    return TransducerLossConfig(
        topology=topology, prune_range=prune_range, language_share=share, min_gradient=-1.0
    )


def loss_of(
    batch: Batch, config: TransducerLossConfig, early: Early = AS_IT_COMES
) -> TransducerLosses:
    (losses,) = transducer_losses([view_of(batch, early)], batch.text, config)
    return losses


def weighted(losses: TransducerLosses) -> Tensor:
    """One number in which each utterance and each part can be told apart."""
    weights = torch.arange(1.0, len(losses.simple) + 1)
    return (weights * (losses.simple + 10.0 * losses.pruned)).sum()


def slow_losses(
    batch: Batch, n: int, config: TransducerLossConfig, texts: Tensor, early: Early
) -> tuple[Tensor, Tensor]:
    """Simple and pruned total of an utterance, pruned to `texts` (T, R)."""
    frames, said = int(batch.text.lens[n]), int(batch.text.token_lens[n])
    text = batch.text.tokens[n, :said].tolist()
    w = batch.weights
    cheap = additive_logits(
        batch.h[n, :frames] @ w[0].t() + w[1],
        batch.p[n, : said + 1] @ w[2].t() + w[3],
        config.language_share,
    )
    real = joint_logits(batch.encoder[n, :frames], batch.prediction[n, : said + 1], (w[4], w[5]))
    windows = [set(row) for row in texts[:frames].tolist()]
    topology, penalty = config.topology, early.delay_penalty
    return (
        slow_total(cheap, text, topology, penalty),
        slow_total(real, text, topology, penalty, windows),
    )


@pytest.mark.parametrize("prune_range", [*range(2, 8), 9])  # 2 ... U + 1, and more
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("seed", range(2))
def test_equals_the_slow_reference(seed: int, topology: Topology, prune_range: int) -> None:
    early = Early(delay_penalty=0.05 * seed)
    batch, config = draw_batch(seed), config_of(topology, prune_range, 0.25 * seed)
    losses, inputs = loss_of(batch, config, early), leaves(batch)
    losses = loss_of(batch, config, early)
    expected = []
    for n in range(9):
        simple, pruned = slow_losses(batch, n, config, losses.alignment.texts[n], early)
        impossible = bool(simple < -1e20) or bool(pruned < -1e20)
        assert bool(losses.impossible[n]) == impossible
        expected.append(torch.stack([-simple, -pruned]) * (0.0 if impossible else 1.0))
    reference = torch.stack(expected)
    torch.testing.assert_close(losses.simple, reference[:, 0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(losses.pruned, reference[:, 1], rtol=1e-10, atol=1e-10)
    weights = torch.arange(1.0, 10.0)
    total = (weights * (reference[:, 0] + 10.0 * reference[:, 1])).sum()
    for mine, slow in zip(
        torch.autograd.grad(weighted(losses), inputs), torch.autograd.grad(total, inputs)
    ):
        torch.testing.assert_close(mine, slow, rtol=1e-8, atol=1e-9)
    assert 0 < int(losses.impossible.sum()) < 9
    missing = has_no_path(batch.text.lens, batch.text.token_lens, topology, prune_range)
    assert torch.equal(losses.impossible, missing)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_windows_lose_little_and_all_texts_lose_nothing(topology: Topology) -> None:
    batch = draw_batch(2)
    whole = loss_of(batch, config_of(topology, 7))
    assert torch.equal(whole.pruned, loss_of(batch, config_of(topology, 20)).pruned)
    for prune_range in range(2, 7):
        pruned = loss_of(batch, config_of(topology, prune_range))
        kept = ~(pruned.impossible | whole.impossible)
        assert (pruned.pruned[kept] >= whole.pruned[kept] - 1e-9).all()
        assert torch.equal(pruned.simple[kept], whole.simple[kept])


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_windows_hold_their_law(topology: Topology) -> None:
    """Never falling, rising slowly, from no text to the whole, and exactly the impossible ones
    have no path: for many lengths.
    """
    for seed, prune_range in itertools.product(range(20), (2, 3, 5)):
        generator = torch.Generator().manual_seed(seed)
        batch = draw_batch(seed)
        text = batch.text._replace(
            lens=torch.randint(0, 10, (9,), generator=generator),
            token_lens=torch.randint(0, 7, (9,), generator=generator),
        )
        config = config_of(topology, prune_range)
        losses = loss_of(batch._replace(text=text), config)
        missing = has_no_path(text.lens, text.token_lens, topology, prune_range)
        assert torch.equal(losses.impossible, missing)
        starts, width = losses.alignment.texts[:, :, 0], losses.alignment.texts.shape[2]
        rise = starts[:, 1:] - starts[:, :-1]
        assert (starts[:, 0] == 0).all() and (rise >= 0).all()
        assert (rise <= (1 if config.moves_on else width - 1)).all()
        possible = ~missing & (text.lens > 0)
        ends = losses.alignment.texts[torch.arange(9), (text.lens - 1).clamp(min=0)]
        assert (ends == text.token_lens[:, None]).any(dim=1)[possible].all()


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("junk", [float("nan"), float("inf"), 1e4])
def test_padding_changes_nothing(topology: Topology, junk: float) -> None:
    clean, dirty = (draw_batch(3, dtype=torch.float32) for _ in range(2))
    tokens = dirty.text.tokens.clone()
    for n in range(9):
        frames, said = int(dirty.text.lens[n]), int(dirty.text.token_lens[n])
        for x, size in ((dirty.h, frames), (dirty.encoder, frames)):
            x[n, size:] = junk
        for x, size in ((dirty.p, said + 1), (dirty.prediction, said + 1)):
            x[n, size:] = junk
        tokens[n, said:] = -1
    dirty = dirty._replace(text=dirty.text._replace(tokens=tokens))
    results = []
    for batch in (clean, dirty):
        inputs = leaves(batch)
        losses = loss_of(batch, config_of(topology))
        gradients = torch.autograd.grad(weighted(losses), inputs)
        results.append([losses.simple, losses.pruned, losses.impossible, *gradients])
    for expected, got in zip(*results):
        assert torch.equal(expected, got)


@pytest.mark.parametrize("min_gradient", [-1.0, 1e-4])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_batch_mates_and_order_change_nothing(topology: Topology, min_gradient: float) -> None:
    config = TransducerLossConfig(topology=topology, prune_range=3, min_gradient=min_gradient)
    batch = draw_batch(4, spread=3.0)
    inputs = leaves(batch)[:4]
    losses = loss_of(batch, config)
    gradients = torch.autograd.grad((losses.simple + losses.pruned).sum(), inputs)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    for rows in (order, *order.split(4), *torch.arange(9).split(1)):
        part = cut(batch, rows)
        some = leaves(part)[:4]
        other = loss_of(part, config)
        torch.testing.assert_close(other.simple, losses.simple[rows], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(other.pruned, losses.pruned[rows], rtol=1e-12, atol=1e-12)
        assert torch.equal(other.impossible, losses.impossible[rows])
        for got, whole in zip(
            torch.autograd.grad((other.simple + other.pruned).sum(), some), gradients
        ):
            expected = whole[rows][:, : got.shape[1]]
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)


def test_branches_in_one_recursion_are_what_they_are_alone() -> None:
    config, early = config_of(), Early(delay_penalty=0.1, fast_emit=0.5)
    first, second = draw_batch(5), draw_batch(6)
    second = second._replace(text=first.text)
    alone = [loss_of(first, config), loss_of(second, config, early)]
    together = transducer_losses([view_of(first), view_of(second, early)], first.text, config)
    for a, b in zip(alone, together):
        assert torch.equal(a.simple, b.simple)
        assert torch.equal(a.pruned, b.pruned)
        assert torch.equal(a.alignment.symbol, b.alignment.symbol)


def test_skipped_cells_hardly_change_the_gradient() -> None:
    batch = draw_batch(7, spread=4.0, dtype=torch.float32)
    inputs = leaves(batch)
    gradients = [
        torch.autograd.grad(
            loss_of(batch, TransducerLossConfig(prune_range=5, min_gradient=m)).pruned.sum(),
            inputs[2:4] + inputs[-2:],
        )
        for m in (-1.0, 1e-4)
    ]
    for whole, part in zip(*gradients):
        assert not torch.equal(whole, part)
        assert (whole - part).norm() <= 1e-3 * whole.norm()


def test_alignment_is_a_distribution() -> None:
    batch = draw_batch(8)
    losses = loss_of(batch, config_of(prune_range=5))
    possible, text = ~losses.impossible, batch.text
    inside = losses.alignment
    assert torch.allclose(inside.symbol.sum((1, 2)), (text.token_lens * possible).double())
    assert torch.allclose(inside.blank.sum((1, 2)), (text.lens * possible).double())


@pytest.mark.parametrize(("frames", "tokens"), [(0, 0), (0, 2), (4, 0), (1, 1)])
def test_smallest_batches(frames: int, tokens: int) -> None:
    batch = draw_batch(0)
    text = batch.text._replace(
        tokens=batch.text.tokens[:, :tokens],
        lens=torch.full((9,), frames),
        token_lens=torch.full((9,), tokens),
    )
    small = Batch(
        batch.h[:, :frames],
        batch.p[:, : tokens + 1],
        batch.encoder[:, :frames],
        batch.prediction[:, : tokens + 1],
        batch.weights,
        text,
    )
    inputs = leaves(small)
    losses = loss_of(small, config_of())
    assert losses.impossible.tolist() == [frames == 0 and tokens > 0] * 9
    assert bool((losses.pruned > 0).all()) == (frames > 0)
    (losses.simple + losses.pruned).sum().backward()
    assert all(x.grad is None or bool(x.grad.isfinite().all()) for x in inputs)


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float32])
def test_float32_inside_autocast(low: torch.dtype) -> None:
    """The same to the bit as outside of autocast, whatever the inputs' precision; gradients in
    the inputs' own.
    """
    batch = draw_batch(9, dtype=torch.float32)
    half = batch._replace(
        h=batch.h.to(low),
        p=batch.p.to(low),
        encoder=batch.encoder.to(low),
        prediction=batch.prediction.to(low),
    )
    single = half._replace(
        h=half.h.float(),
        p=half.p.float(),
        encoder=half.encoder.float(),
        prediction=half.prediction.float(),
    )
    inputs, config = leaves(half), TransducerLossConfig()
    expected = loss_of(single, config)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = loss_of(half, config)
        gradients = torch.autograd.grad((losses.simple + losses.pruned).sum(), inputs)
    assert torch.equal(losses.simple, expected.simple)
    assert torch.equal(losses.pruned, expected.pruned)
    assert [g.dtype for g in gradients] == [x.dtype for x in inputs]


def test_very_unlike_halves_of_the_simple_joiner_give_finite_gradients() -> None:
    """Where each half is sure of another token, float32 holds no sum of their products."""
    batch = draw_batch(1, dtype=torch.float32)
    batch.weights[1][2], batch.weights[3][4] = 200.0, 200.0
    inputs = leaves(batch)
    losses = loss_of(batch, TransducerLossConfig())
    gradients = torch.autograd.grad(losses.simple.sum(), inputs[:2] + inputs[4:8])
    assert losses.simple.isfinite().all()
    assert all(bool(g.isfinite().all()) for g in gradients)


def test_schedule_is_the_published_one() -> None:
    config = TransducerLossConfig(delay_penalty=0.002)
    assert config.weights(0) == (1.0, 0.1)
    assert config.weights(1000) == pytest.approx((0.75, 0.55))
    assert config.weights(2000) == (0.5, 1.0) == config.weights(1e6)
    assert config.delay_penalty_at(3999) == 0.0
    assert config.delay_penalty_at(4000) == 0.002
    assert TransducerLossConfig(warm_up=0).weights(1) == (0.5, 1.0)
    late = TransducerLossConfig(start=300)
    assert late.weights(299) == (0.0, 0.0)
    assert late.weights(300) == (1.0, 0.1)
    assert late.weights(1300) == pytest.approx((0.75, 0.55))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prune_range": 1}, "prune_range must be at least 2"),
        ({"language_share": 1.0}, "language_share must lie in"),
        ({"delay_penalty": -0.1}, "delay_penalty must be >= 0"),
        ({"fast_emit": float("nan")}, "fast_emit must be >= 0"),
        ({"topology": "hat"}, "topology must be one of"),
        ({"min_gradient": 0.5}, "min_gradient must be < 0.1"),
        ({"prune_rang": 3}, "did you mean 'prune_range'"),
    ],
)
def test_config_refuses(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_dict(TransducerLossConfig, values)
