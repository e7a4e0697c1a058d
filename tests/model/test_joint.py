"""The joint model: losses, gradients, padding, determinism, shared decoders, DDP's view of it."""

import math
from pathlib import Path

import pytest
import torch
from joint_cases import (
    ALL_BRANCHES,
    CHUNK,
    INTEGRATIONS,
    SHARING,
    VOCAB,
    joint_model,
    make_batch,
    stack,
    stir,
)
from torch import Tensor, distributed, nn

from dualasr_lib.model.attention_decoder import AttentionDecoder, DecoderConfig, smoothed_nll
from dualasr_lib.model.distillation import DistillationConfig
from dualasr_lib.model.heads.ctc import min_ctc_frames
from dualasr_lib.model.joint import JointModel, LossConfig, Losses, total_loss
from dualasr_lib.model.model_config import Branch, IntegrationName
from dualasr_lib.model.zipformer.normalisation import BiasNorm, Bypass
from dualasr_lib.model.zipformer.scheduled import Scheduled, set_step
from dualasr_lib.model.zipformer.training_aids import Aids

KD = DistillationConfig(encoder_weight=2.0, head_weights={"attention": 3.0})

each_kind = pytest.mark.parametrize(
    ("integration", "branches", "sharing"),
    [
        (integration, branches, sharing)
        for integration in INTEGRATIONS
        for branches in ALL_BRANCHES
        for sharing in ("separate", "shared")
    ],
)


def losses_of(model: JointModel) -> Losses:
    losses: Losses = model(*make_batch(), CHUNK)
    return losses


def flat(losses: Losses) -> dict[str, Tensor]:
    """All terms by name."""
    terms = {
        f"{head} {branch}": value
        for head, values in losses.heads.items()
        for branch, value in values.items()
    }
    if losses.distilled is not None:
        terms |= {"encoder": losses.distilled.encoder, **losses.distilled.heads}
    return terms | {"tokens": losses.num_tokens, "impossible": losses.impossible}


@each_kind
def test_losses_are_finite_and_train_every_parameter(
    integration: IntegrationName, branches: tuple[Branch, ...], sharing: str
) -> None:
    model = joint_model(
        KD, integration=integration, branches=branches, heads={"shared": SHARING[sharing]}
    )  # fmt: skip
    model.eval()  # in training, parts are skipped now and then
    losses = losses_of(model)
    total_loss(losses.parts(LossConfig(distillation=KD))).backward()
    assert {name: tuple(its) for name, its in losses.heads.items()} == {
        "ctc": branches,
        "attention": branches,
    }
    assert (losses.distilled is None) == (model.distiller is None) == (len(branches) == 1)
    assert all(bool(term.isfinite().all()) for term in flat(losses).values())
    assert float(losses.num_tokens) == 4 + 2 + 0 + 3
    untouched = [name for name, p in model.named_parameters() if p.grad is None]
    assert untouched == []


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    config = LossConfig(
        streaming=0.5, full=0.25, heads={"ctc": 0.2, "attention": 0.8}, distillation=KD
    )
    losses = losses_of(joint_model(KD))
    assert losses.distilled is not None
    ctc, attention = losses.heads["ctc"], losses.heads["attention"]
    expected = 0.5 * (0.2 * ctc["streaming"] + 0.8 * attention["streaming"]) / 9
    expected = expected + 0.25 * (0.2 * ctc["full"] + 0.8 * attention["full"]) / 9
    expected = expected + 2.0 * losses.distilled.encoder + 3.0 * losses.distilled.heads["attention"]
    torch.testing.assert_close(total_loss(losses.parts(config)), expected)
    alone = losses_of(joint_model(KD, branches=("full",)))
    expected = 0.2 * alone.heads["ctc"]["full"] + 0.8 * alone.heads["attention"]["full"]
    torch.testing.assert_close(total_loss(alone.parts(config)), 0.25 * expected / 9)


@pytest.mark.parametrize("integration", INTEGRATIONS)
def test_padding_never_enters_the_losses(integration: IntegrationName) -> None:
    model = joint_model(integration=integration)
    stir(model)
    model.eval()
    features, lens, targets = make_batch()
    expected = flat(model(features, lens, targets, CHUNK))
    dirty = torch.cat([features, torch.zeros(3, 40, features.shape[2])], dim=1)
    for i, n in enumerate(lens.tolist()):
        dirty[i, n:] = float("nan")
    got = flat(model(dirty, lens, targets, CHUNK))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("branches", ALL_BRANCHES)
def test_evaluation_is_deterministic(branches: tuple[Branch, ...]) -> None:
    model = joint_model(branches=branches, dropout=0.2).eval()
    a, b = (flat(losses_of(model)) for _ in range(2))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("integration", INTEGRATIONS)
def test_shared_decoders_are_one_set_for_both_branches(integration: IntegrationName) -> None:
    shared = joint_model(integration=integration, heads={"shared": ("ctc", "attention")})
    separate = joint_model(integration=integration)
    assert all(set(owners) == {"shared"} for owners in shared.heads.values())
    assert all(set(owners) == {"streaming", "full"} for owners in separate.heads.values())
    h = torch.randn(1, 3, 16)
    for model in (shared, separate):
        sides = [model.frames(h, branch)["ctc"] for branch in ("streaming", "full")]
        assert torch.equal(*sides) == (model is shared)
    heads = sum(p.numel() for p in separate.heads.parameters())
    saved = sum(p.numel() for p in separate.parameters()) - sum(
        p.numel() for p in shared.parameters()
    )
    assert 2 * saved == heads


def test_shared_decoders_need_one_width() -> None:
    with pytest.raises(ValueError, match=r"streaming has 16 channels and full 24: .*layer\.dim"):
        joint_model(heads={"shared": ("ctc", "attention")}, full=(stack(dim=24),))
    joint_model(heads={"shared": ("ctc", "attention")}, full=(stack(dim=24),), branches=("full",))
    joint_model(heads={"shared": ("ctc", "attention")}, full=(stack(dim=24),), integration="shared")


def test_views_are_what_the_losses_are_made_of() -> None:
    model = joint_model(KD).eval()
    features, lens, targets = make_batch()
    views = model.views(model.read(features, lens, targets, CHUNK))
    losses = losses_of(model)
    assert model.distiller is not None and losses.distilled is not None
    again = model.distiller(views["full"], views["streaming"])
    assert torch.equal(again.encoder, losses.distilled.encoder)
    assert torch.equal(again.heads["attention"], losses.distilled.heads["attention"])
    for view in views.values():
        assert view.encoder.hidden.shape[:2] == view.encoder.said.shape[:2] == (3, 18)
        assert view.encoder.lens.tolist() == [18, 9, 3]
        assert view.heads.keys() == {"attention"}
        assert view.heads["attention"].said.shape == (3, 5, VOCAB)
        assert view.heads["attention"].lens.tolist() == [5, 3, 1]


def test_distillation_waits_for_its_warm_up() -> None:
    model = joint_model(DistillationConfig(encoder_weight=2.0, warm_up=5)).train()
    terms = []
    for step in (0, 4, 5):
        model.set_step(step)
        distilled = losses_of(model).distilled
        assert distilled is not None and float(distilled.heads["attention"]) == 0.0
        terms.append(float(distilled.encoder.detach()))
    assert terms[:2] == [0.0, 0.0] and terms[2] > 0


def test_impossible_utterance_is_named_and_harmless() -> None:
    model = joint_model()
    features, lens, targets = make_batch()
    lens[0] = 13  # 4 encoder frames; 3 3 4 5 needs 5
    losses = model(features, lens, targets, CHUNK)
    total_loss(losses.parts(LossConfig())).backward()
    assert losses.impossible.tolist() == [True, False, False]
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("branches", ALL_BRANCHES)
def test_ddp_hands_the_losses_through(branches: tuple[Branch, ...], tmp_path: Path) -> None:
    """It takes outputs apart and puts them together again: mappings, tuples and None."""
    model = joint_model(branches=branches)
    expected = flat(losses_of(model))
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        wrapped = nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
        losses = wrapped(*make_batch(), CHUNK)
        total_loss(losses.parts(LossConfig())).backward()
    finally:
        distributed.destroy_process_group()
    assert isinstance(losses, Losses)
    assert flat(losses).keys() == expected.keys()


def test_min_ctc_frames_counts_repeats_inside_the_text() -> None:
    tokens = torch.tensor([[3, 3, 3, 4], [5, 0, 0, 0], [6, 6, 0, 0]])
    assert min_ctc_frames(tokens, torch.tensor([4, 1, 2])).tolist() == [6, 1, 3]


def test_decoder_is_causal_and_smoothing_matches_one_hot() -> None:
    torch.manual_seed(0)
    config = DecoderConfig(layers=2, dim=8, heads=2, feedforward=8, dropout=0.0)
    decoder = AttentionDecoder(config, VOCAB, 6, sos_eos=1).eval()
    memory, lens = torch.randn(2, 5, 6), torch.tensor([5, 3])
    tokens, token_lens = torch.tensor([[3, 4, 5], [6, 0, 0]]), torch.tensor([3, 1])
    output = decoder(memory, lens, tokens, token_lens)
    assert output.targets.tolist() == [[3, 4, 5, 1], [6, 1, -1, -1]]
    later = tokens.clone()
    later[0, 2] = 9
    changed = decoder(memory, lens, later, token_lens)
    torch.testing.assert_close(changed.hidden[0, :3], output.hidden[0, :3])
    assert not torch.allclose(changed.hidden[0, 3], output.hidden[0, 3])
    noisy = memory.clone()
    noisy[1, 3:] = 100.0
    torch.testing.assert_close(decoder(noisy, lens, tokens, token_lens).hidden, output.hidden)
    one_hot = torch.full((2, 4, VOCAB), 0.1 / VOCAB)
    one_hot.scatter_add_(2, output.targets.clamp(min=0)[:, :, None], torch.full((2, 4, 1), 0.9))
    expected = -(one_hot * output.log_probs).sum(2).masked_fill(output.targets < 0, 0.0).sum(1)
    torch.testing.assert_close(smoothed_nll(output.log_probs, output.targets, 0.1), expected)


def test_bias_norm() -> None:
    norm = BiasNorm(4)
    x = torch.randn(3, 4)
    bias = norm.bias.detach()
    expected = x * math.e / (x - bias).square().mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(norm(x).detach(), expected)


def test_bypass_is_led_above_its_floor() -> None:
    """The floor of 0.9 falls to 0.2: a scale of 0.5 is pushed up first and then left alone."""
    bypass = Bypass(2, Aids(False))
    before, after = torch.zeros(1, 3, 2), torch.ones(1, 3, 2)
    for step, signs in ((0, {-1.0, 1.0}), (20000, {1.0})):
        set_step(bypass, step)
        seen = set()
        for _ in range(20):  # the push comes with a probability
            y = bypass(before, after)
            torch.testing.assert_close(y.detach(), torch.full((1, 3, 2), 0.5))
            (gradient,) = torch.autograd.grad(y.sum(), bypass.scale)
            seen |= set(gradient.sign().tolist())
        assert seen == signs


def test_schedule() -> None:
    schedule = Scheduled((0, 1.0), (10, 0.0))
    assert schedule.now() == 1.0
    set_step(schedule, 5)
    assert schedule.now() == 0.5
    assert schedule.eval().now() == 0.5
    with pytest.raises(ValueError, match="must increase"):
        Scheduled((5, 1.0), (5, 0.0))
