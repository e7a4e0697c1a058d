"""Every integration with every choice of branches: nothing of the future reaches the streaming
branch, `step` equals `forward`, padding is harmless, a branch alone is the branch of the joint
model."""

import functools
import itertools
import random

import pytest
import torch
from joint_cases import (
    ALL_BRANCHES,
    CHUNK,
    FEATURES,
    INTEGRATIONS,
    joint_model,
    make_batch,
    model_config,
    stack,
    stir,
)
from streaming_contract import Module, verify_streaming
from torch import Tensor

from dualasr_lib.model.encoder import EncoderState
from dualasr_lib.model.integration import build_integration
from dualasr_lib.model.joint import JointModel
from dualasr_lib.model.model_config import Branch, IntegrationName
from dualasr_lib.model.zipformer.attention import AttentionWeights
from dualasr_lib.model.zipformer.regularise import Whiten
from dualasr_lib.model.zipformer.scheduled import set_step
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.model.zipformer.subsampling import SubsamplingConfig

CPU = torch.device("cpu")
WITH_STREAMING = [
    (integration, branches)
    for integration, branches in itertools.product(INTEGRATIONS, ALL_BRANCHES)
    if "streaming" in branches
]

each_kind = pytest.mark.parametrize(
    ("integration", "branches"), list(itertools.product(INTEGRATIONS, ALL_BRANCHES))
)
each_streaming_kind = pytest.mark.parametrize(("integration", "branches"), WITH_STREAMING)
each_integration = pytest.mark.parametrize("integration", INTEGRATIONS)


def states(model: JointModel, features: Tensor, chunk: ChunkSpec) -> dict[Branch, Tensor]:
    """Hidden states of whole utterances, all frames valid; the same random masks every time."""
    torch.manual_seed(11)
    lens = torch.full((features.shape[0],), features.shape[1])
    return {branch: found.h for branch, found in model.encode(features, lens, chunk).items()}


@each_streaming_kind
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("future", [(0, 0, 0, 0), (2, 1, 2, 3)])
def test_what_follows_a_chunk_never_changes_it(
    integration: IntegrationName,
    branches: tuple[Branch, ...],
    training: bool,
    future: tuple[int, ...],
) -> None:
    """Chunks, left contexts and the place of the change are drawn; in training, at its beginning
    where most is skipped and masked, dropout and all of that draw the same before and after."""
    subsampling = SubsamplingConfig(channels=(2, 3, 4), future=future, dropout=0.1)
    model = joint_model(
        integration=integration, branches=branches, dropout=0.1, subsampling=subsampling
    )
    stir(model)
    if training:
        set_step(model.train(), 0)
    else:
        model.eval()
    rng = random.Random(f"{integration} {branches} {future}")
    features, reached = torch.randn(2, 256, FEATURES), 0
    for _ in range(4):
        frames = rng.choice([4, 8, 16, 32])
        chunk = ChunkSpec(frames=frames, left=frames * rng.choice([1, 2, 4]))
        count = rng.randint(1, 256 // (2 * frames) - 1)  # chunks that must not change
        changed = features.clone()
        heard = 2 * frames * count + model.streaming.lookahead
        changed[:, heard:] = 100.0 * torch.randn_like(changed[:, heard:])
        with torch.no_grad():
            before, after = (states(model, x, chunk) for x in (features, changed))
        kept = count * frames // 2
        assert torch.equal(before["streaming"][:, :kept], after["streaming"][:, :kept])
        assert not torch.allclose(before["streaming"][:, kept:], after["streaming"][:, kept:])
        if "full" in branches:
            reached += not torch.allclose(before["full"][:, :kept], after["full"][:, :kept])
    if "full" in branches:  # in training, all that hears the future may be skipped in a draw
        assert reached > 0 if training else reached == 4


@each_streaming_kind
@pytest.mark.parametrize("training", [False, True])
def test_no_gradient_reaches_the_streaming_branch_from_the_future(
    integration: IntegrationName, branches: tuple[Branch, ...], training: bool
) -> None:
    model = joint_model(integration=integration, branches=branches, dropout=0.1)
    stir(model)
    model.train(training)
    for module in model.modules():
        if isinstance(module, Whiten):  # adds to gradients by statistics of all frames, and
            module.eval()  # changes no output: nothing is heard that way
        if isinstance(module, AttentionWeights):  # nor by what pushes large scores back
            module.penalty_rate = 0.0
    features = torch.randn(1, 64, FEATURES, requires_grad=True)
    for frames, count in ((8, 1), (8, 3), (16, 1)):
        found = states(model, features, ChunkSpec(frames=frames, left=2 * frames))
        for branch, h in found.items():
            past = h[:, : count * frames // 2].square().sum()
            (gradient,) = torch.autograd.grad(past, features, retain_graph=True)
            assert gradient[:, : 2 * frames * count].abs().sum() > 0
            leak = gradient[:, 2 * frames * count :].abs().sum()
            assert leak == 0 if branch == "streaming" else leak > 0


@each_streaming_kind
@pytest.mark.parametrize("frames", [8, 16])
def test_step_equals_forward(
    integration: IntegrationName, branches: tuple[Branch, ...], frames: int
) -> None:
    chunk = ChunkSpec(frames=frames, left=2 * frames)
    subsampling = SubsamplingConfig(channels=(2, 3, 4), future=(2, 1, 2, 3))
    model = joint_model(integration=integration, branches=branches, subsampling=subsampling)
    stir(model)
    encoder, extra = model.eval().streaming, model.streaming.lookahead

    def forward(x: Tensor) -> Tensor:
        lens = torch.full((x.shape[0],), x.shape[1])
        whole = model.encode(x, lens, chunk, ("streaming",))["streaming"]
        return whole.h[:, : (x.shape[1] - extra) // 4]

    def step(x: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
        return encoder.step(x, torch.full((x.shape[0],), x.shape[1]), state, prepared)

    prepared = encoder.prepare(chunk, CPU)
    weights = tuple(encoder.parameters())
    start = functools.partial(encoder.init_state, chunk=chunk, device=CPU)
    module = Module(forward, step, start, 2 * frames, extra, weights)
    verify_streaming(module, torch.randn(2, 5 * 2 * frames + extra, FEATURES), 1e-4)


@each_kind
def test_each_utterance_alone_gives_what_the_batch_gives(
    integration: IntegrationName, branches: tuple[Branch, ...]
) -> None:
    model = joint_model(integration=integration, branches=branches)
    stir(model)
    model.eval()
    features, lens, _ = make_batch()
    lens = torch.tensor([70, 33, 1])
    for i, n in enumerate(lens.tolist()):
        features[i, n:] = float("nan")
    with torch.no_grad():
        together = model.encode(features, lens, CHUNK)
        assert list(together) == list(branches)
        for i, n in enumerate(lens.tolist()):
            alone = model.encode(features[i : i + 1, :n], lens[i : i + 1], CHUNK)
            for branch in branches:
                size = int(alone[branch].lens)
                assert size == (n + 3) // 4 == int(together[branch].lens[i])
                torch.testing.assert_close(
                    alone[branch].h[0, :size], together[branch].h[i, :size], rtol=1e-4, atol=1e-4
                )


@each_kind
def test_every_branch_can_be_asked_for_by_itself(
    integration: IntegrationName, branches: tuple[Branch, ...]
) -> None:
    model = joint_model(integration=integration, branches=branches).eval()
    features, lens, _ = make_batch()
    both = model.encode(features, lens, CHUNK)
    for branch in branches:
        alone = model.encode(features, lens, CHUNK, (branch,))
        assert list(alone) == [branch]
        assert torch.equal(alone[branch].h, both[branch].h)


@each_integration
def test_streaming_alone_is_the_streaming_branch_of_the_joint_model(
    integration: IntegrationName,
) -> None:
    joint = joint_model(integration=integration)
    alone = joint_model(integration=integration, branches=("streaming",), seed=4)
    weights = joint.state_dict()
    alone.load_state_dict({name: weights[name] for name in alone.state_dict()})
    features, lens, targets = make_batch()
    found = []
    for model in (joint.eval(), alone.eval()):
        found.append(model.views(model.read(features, lens, targets, CHUNK)))
    assert list(found[1]) == ["streaming"]
    expected, got = (views["streaming"] for views in found)
    for a, b in (
        (got.encoder, expected.encoder),
        (got.heads["attention"], expected.heads["attention"]),
    ):
        assert all(torch.equal(x, y) for x, y in zip(a, b))


@each_integration
def test_full_alone_has_the_parameters_of_the_joint_full_path(
    integration: IntegrationName,
) -> None:
    joint = dict(joint_model(integration=integration).named_parameters())
    alone = dict(joint_model(integration=integration, branches=("full",)).named_parameters())
    path = {
        "cascaded": ("encoders.",),
        "parallel": ("encoders.streaming.subsampling.", "encoders.full."),
        "shared": ("encoders.streaming.",),
    }[integration]
    kept = (*path, "heads.ctc.full.", "heads.attention.full.")
    assert set(alone) == {name for name in joint if name.startswith(kept)}
    assert all(alone[name].shape == joint[name].shape for name in alone)


@each_integration
def test_full_alone_hears_everything_whatever_the_chunk(integration: IntegrationName) -> None:
    model = joint_model(integration=integration, branches=("full",))
    stir(model)
    model.eval()
    features = torch.randn(1, 64, FEATURES, requires_grad=True)
    lens = torch.tensor([64])
    h = model.encode(features, lens, CHUNK)["full"].h
    assert torch.equal(h, model.encode(features, lens, ChunkSpec(frames=2, left=2))["full"].h)
    for frame in (0, 15):
        (gradient,) = torch.autograd.grad(h[0, frame].square().sum(), features, retain_graph=True)
        assert bool((gradient[0].abs().sum(dim=1) > 0).all())
    assert model.encoders.chunked == ()


def test_full_alone_equals_the_joint_branch_where_that_hears_everything() -> None:
    """One chunk that holds the utterance masks nothing, so cascaded and standalone may not differ
    by more than the padding of the chunk's end; shared and parallel do not depend on the chunk."""
    features, lens = torch.randn(2, 64, FEATURES), torch.tensor([64, 64])
    for integration in INTEGRATIONS:
        joint = joint_model(integration=integration)
        stir(joint)
        alone = joint_model(integration=integration, branches=("full",))
        weights = joint.state_dict()
        alone.load_state_dict({name: weights[name] for name in alone.state_dict()})
        chunk = ChunkSpec(frames=32, left=32)
        expected = joint.eval().encode(features, lens, chunk)["full"].h
        got = alone.eval().encode(features, lens, chunk)["full"].h
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_shared_stacks_are_one_set_of_parameters() -> None:
    cascaded, shared = (
        build_integration(model_config(integration=name)) for name in ("cascaded", "shared")
    )
    alone = build_integration(model_config(branches=("streaming",)))
    assert {name for name, _ in shared.named_parameters()} == {
        name for name, _ in alone.named_parameters()
    }
    assert sum(p.numel() for p in cascaded.parameters()) > sum(
        p.numel() for p in shared.parameters()
    )


@each_integration
def test_widths_of_the_branches(integration: IntegrationName) -> None:
    model = joint_model(integration=integration, full=(stack(dim=24),))
    features, lens, _ = make_batch()
    for branch, states in model.encode(features, lens, CHUNK).items():
        assert states.h.shape[2] == model.encoders.output_dims[branch]
    assert model.encoders.output_dims["full"] == (16 if integration == "shared" else 24)


@pytest.mark.parametrize("branches", [(), ("full", "full")])
def test_branches_that_cannot_be(branches: tuple[Branch, ...]) -> None:
    with pytest.raises(ValueError, match=r'must be \["streaming", "full"\] or one of them'):
        model_config(branches=branches)


def test_a_missing_branch_is_named() -> None:
    model = joint_model(branches=("full",))
    features, lens, _ = make_batch()
    message = r"needs a model with a streaming branch, .* model.branches = \['full'\]"
    with pytest.raises(ValueError, match=message):
        model.encode(features, lens, CHUNK, ("streaming",))
    with pytest.raises(ValueError, match=message):
        _ = model.streaming


def test_chunks_that_the_stacks_cannot_have() -> None:
    features, lens, _ = make_batch()
    for frames in (6, 7):
        with pytest.raises(ValueError, match="multiple of each stack's downsampling"):
            joint_model().encode(features, lens, ChunkSpec(frames=frames, left=frames))
