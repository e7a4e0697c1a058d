"""What transducers say of common cells, and the divergence between them, against loops."""

import math

import pytest
import torch
from joint_cases import CHUNK, joint_model, make_batch
from slow_transducer import joint_logits
from torch import Tensor
from transducer_cases import Batch, draw_batch, leaves, view_of

from dualasr_lib.model.distillation import DistillationConfig
from dualasr_lib.model.heads.transducer import TransducerHeadConfig
from dualasr_lib.model.joint import JointModel
from dualasr_lib.model.pairing import Sequences
from dualasr_lib.model.rivals import LogitKl
from dualasr_lib.model.transducer.loss import TransducerLosses, transducer_losses
from dualasr_lib.model.transducer.outcomes import ThreeWay, common_windows, three_way
from dualasr_lib.model.transducer.settings import TransducerConfig, TransducerLossConfig


def pair_of(seed: int, dtype: torch.dtype = torch.float64) -> tuple[Batch, Batch]:
    """Two branches that have heard the same texts."""
    first, second = draw_batch(seed, dtype=dtype), draw_batch(seed + 100, dtype=dtype)
    return first, second._replace(text=first.text)


def config_of(prune_range: int) -> TransducerLossConfig:
    return TransducerLossConfig(prune_range=prune_range, min_gradient=-1.0)


def compared(
    pair: tuple[Batch, Batch], config: TransducerLossConfig
) -> tuple[list[TransducerLosses], Tensor, list[ThreeWay]]:
    text = pair[0].text
    views = [view_of(batch) for batch in pair]
    losses = transducer_losses(views, text, config)
    texts = common_windows(losses, text, config)
    said = [three_way(v, text, texts, one.impossible, config) for v, one in zip(views, losses)]
    return losses, texts, said


def kl_of(said: list[ThreeWay]) -> Tensor:
    sides = [Sequences(one.log_probs, one.log_probs, one.lens) for one in said]
    loss: Tensor = LogitKl(3, 3, shift=0, temperature=1.0)(sides[0].detach(), sides[1])
    return loss


def slow_kl(pair: tuple[Batch, Batch], texts: Tensor, lost: Tensor) -> Tensor:
    """Mean over the cells of the divergence of (token, blank, rest), from plain softmaxes."""
    text, terms = pair[0].text, []
    for n in range(9):
        frames, said = int(text.lens[n]), int(text.token_lens[n])
        probs = [
            joint_logits(
                b.encoder[n, :frames], b.prediction[n, : said + 1], (b.weights[4], b.weights[5])
            ).softmax(dim=2)
            for b in pair
        ]
        if bool(lost[n]):
            continue
        for t in range(frames):
            for u in texts[n, t].tolist():
                if u > said:
                    continue
                rows = []
                for p in probs:
                    token = [p[t, u, int(text.tokens[n, u])]] if u < said else []
                    known = [p[t, u, 0], *token]
                    rows.append(torch.stack([*known, 1.0 - torch.stack(known).sum()]))
                terms.append((rows[0].detach() * (rows[0].detach() / rows[1]).log()).sum())
    return torch.stack(terms).mean()


@pytest.mark.parametrize("prune_range", [2, 3, 7])
@pytest.mark.parametrize("seed", range(3))
def test_divergence_is_that_of_a_loop_over_cells(seed: int, prune_range: int) -> None:
    pair = pair_of(seed)
    inputs = [leaves(batch) for batch in pair][1]
    losses, texts, said = compared(pair, config_of(prune_range))
    expected = slow_kl(pair, texts, losses[0].impossible)
    got = kl_of(said)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-10)
    mine = torch.autograd.grad(got, inputs, allow_unused=True)
    slow = torch.autograd.grad(expected, inputs, allow_unused=True)
    assert sum(x is not None for x in slow) == 4  # encoder, prediction, output
    for a, b in zip(mine, slow):
        if b is not None:
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_common_windows_are_lawful_and_those_of_a_branch_beside_itself() -> None:
    pair, config = pair_of(4), config_of(3)
    losses, texts, _ = compared(pair, config)
    starts, text = texts[:, :, 0], pair[0].text
    rise = starts[:, 1:] - starts[:, :-1]
    assert (starts[:, 0] == 0).all() and (rise >= 0).all() and (rise <= 2).all()
    possible = ~losses[0].impossible & (text.lens > 0)
    last = texts[torch.arange(9), (text.lens - 1).clamp(min=0)]
    assert (last == text.token_lens[:, None]).any(dim=1)[possible].all()
    alone = common_windows([losses[0]], text, config)
    assert torch.equal(alone, common_windows([losses[0], losses[0]], text, config))
    assert not torch.equal(texts, alone)


def test_padding_and_nan_change_nothing() -> None:
    results = []
    for junk in (0.0, math.nan):
        pair = pair_of(5, torch.float32)
        for batch in pair:
            for n in range(9):
                batch.encoder[n, int(batch.text.lens[n]) :] = junk
                batch.prediction[n, int(batch.text.token_lens[n]) + 1 :] = junk
        inputs = leaves(pair[1])[2:4]
        _, _, said = compared(pair, config_of(3))
        loss = kl_of(said)
        results.append([loss, *torch.autograd.grad(loss, inputs)])
    for expected, got in zip(*results):
        assert torch.equal(expected, got) and bool(got.isfinite().all())


def test_probabilities_add_up_and_impossible_texts_are_left_out() -> None:
    pair, config = pair_of(6), config_of(3)
    losses, texts, said = compared(pair, config)
    text = pair[0].text
    for one in said:
        for n in range(9):
            size = (
                0
                if losses[0].impossible[n]
                else int((texts[n, : int(text.lens[n])] <= text.token_lens[n]).sum())
            )
            assert int(one.lens[n]) == size
            total = one.log_probs[n, :size].exp().sum(dim=1)
            torch.testing.assert_close(total, torch.ones_like(total))


def model_of(states: str, method: str) -> JointModel:
    small = TransducerConfig(dim=8, joiner_dim=12)
    transducer = TransducerHeadConfig(sizes=small, states=states)  # type: ignore[arg-type]
    kd = DistillationConfig(
        method=method,  # type: ignore[arg-type]
        head_weights={"transducer": 1.0},
    )
    branches = {"streaming": ("transducer",), "full": ("ctc", "transducer")}
    return joint_model(kd, heads={**branches, "transducer": transducer})


def test_the_joint_model_distils_outcomes() -> None:
    model = model_of("outcomes", "logit_kl")
    losses = model(*make_batch(), CHUNK)
    assert losses.distilled is not None
    loss = losses.distilled.heads["transducer"]
    assert float(loss) > 0
    loss.backward()
    streaming, full = (model.head("transducer", branch) for branch in ("streaming", "full"))
    assert all(p.grad is None for p in full.parameters())
    taught = {name for name, p in streaming.named_parameters() if p.grad is not None}
    assert {"transducer.joiner.output.weight", "transducer.prediction.conv.weight"} <= taught


def test_outputs_need_outcomes() -> None:
    with pytest.raises(ValueError, match="transducer heads show hidden states: it needs"):
        model_of("mean", "logit_kl")
