"""How much of its output each residual branch makes before the first step; how a bypass mixes.

A branch that is summed with its input should begin quiet: the sum of an untrained branch and a
signal is the signal with noise, which everything behind it has to learn through. Here every branch
of a model of the demo's sizes says its share, the variance of the branch over that of the sum.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from joint_cases import Input
from learnable import BINS, TOKENS, Speech
from torch import Tensor, nn

from dualasr_lib.model.attention_decoder import DecoderConfig
from dualasr_lib.model.decoder_layer import DecoderLayer
from dualasr_lib.model.distillation import DistillationConfig
from dualasr_lib.model.heads.registry import HeadsConfig
from dualasr_lib.model.joint import JointModel
from dualasr_lib.model.model_config import IntegrationName, ModelConfig
from dualasr_lib.model.zipformer import subsampling
from dualasr_lib.model.zipformer.layer import LayerConfig, ZipformerLayer
from dualasr_lib.model.zipformer.normalisation import Bypass
from dualasr_lib.model.zipformer.stacks import StackConfig
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.model.zipformer.subsampling import ConvSubsampling, SubsamplingConfig
from dualasr_lib.model.zipformer.training_aids import FrontAids

CHUNK = ChunkSpec(frames=16, left=64)

LARGEST = {
    "block": 0.02,
    "feedforward": 0.0005,
    "nonlinear": 0.002,
    "attention": 0.002,
    "conv": 0.0005,
    "self_output": 0.15,
    "memory_output": 0.45,
    "contract": 0.06,
}
"""Kind of branch -> the largest share it may have at the start, about twice what was measured. The
attention decoder is an ordinary pre-norm Transformer with torch's own initial weights, as
published: its branches are not scaled down."""


def model(integration: IntegrationName, aids: FrontAids | None = None, seed: int = 0) -> JointModel:
    torch.manual_seed(seed)
    layer = LayerConfig(dim=96, feedforward=192, kernel=15, dropout=0.0)
    config = ModelConfig(
        num_features=BINS,
        integration=integration,
        subsampling=SubsamplingConfig(channels=(8, 16, 24), aids=aids or FrontAids()),
        streaming=(StackConfig(layers=1, layer=layer), StackConfig(downsampling=2, layer=layer)),
        full=(StackConfig(layers=2, layer=layer),),
        heads=HeadsConfig(attention=DecoderConfig(layers=2, dim=96, heads=4, feedforward=192)),
    )
    return JointModel(config, DistillationConfig(), TOKENS, sos_eos=1).eval()


def shares(joint: JointModel, batch: Input, patch: pytest.MonkeyPatch) -> dict[str, float]:
    """Name of each residual branch in use -> its share, the largest over the passes."""
    found: dict[str, float] = {}

    def note(name: str, before: Tensor, branch: Tensor) -> None:
        share = float(branch.var() / (before + branch).var())
        found[name] = max(share, found.get(name, 0.0))

    handles = [
        handle for name, module in joint.named_modules() for handle in _watch(name, module, note)
    ]
    blocks = [m for m in joint.modules() if isinstance(m, ConvSubsampling)]
    inside: list[Tensor] = []
    real = subsampling.feedforward

    def recorded(*arguments: Any) -> Tensor:
        inside.append(real(*arguments))
        return inside[-1]

    patch.setattr(subsampling, "feedforward", recorded)

    def block(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
        branch = inside.pop().reshape(inputs[0].shape)
        note("front.block", inputs[0] - branch, branch)

    handles += [front.aids["block"].register_forward_hook(block) for front in blocks]
    with torch.no_grad():
        joint(batch.features, batch.lens, batch.targets, CHUNK)
    for handle in handles:
        handle.remove()
    return found


Note = Callable[[str, Tensor, Tensor], None]


def _watch(name: str, module: nn.Module, note: Note) -> Iterator[Any]:
    """Hooks on the residual branches right below `module`."""
    if isinstance(module, ZipformerLayer):
        for part, child in module.named_children():
            if part.rstrip("123") in ("feedforward", "nonlinear", "attention", "conv"):
                yield child.register_forward_hook(
                    lambda _, inputs, output, part=part: note(
                        f"{name}.{part}",
                        inputs[0],
                        output[0] if isinstance(output, tuple) else output,
                    )
                )
    if isinstance(module, DecoderLayer):
        last: list[Tensor] = []
        for norm, branch in (
            ("self_norm", "self_output"),
            ("memory_norm", "memory_output"),
            ("feedforward_norm", "contract"),
        ):
            yield getattr(module, norm).register_forward_hook(
                lambda _, inputs, __: last.append(inputs[0])
            )
            yield getattr(module, branch).register_forward_hook(
                lambda _, __, output, branch=branch: note(f"{name}.{branch}", last[-1], output)
            )


def kind(name: str) -> str:
    return name.rpartition(".")[2].rstrip("123")


@pytest.mark.parametrize("integration", ["cascaded", "parallel", "shared"])
def test_every_residual_branch_starts_quiet(
    integration: IntegrationName, monkeypatch: pytest.MonkeyPatch
) -> None:
    joint = model(integration)
    found = shares(joint, Speech(0).batch(4), monkeypatch)
    layers = [m for m in joint.modules() if isinstance(m, ZipformerLayer)]
    decoder_layers = [m for m in joint.modules() if isinstance(m, DecoderLayer)]
    assert len(found) == 1 + 8 * len(layers) + 3 * len(decoder_layers)
    loud = {name: share for name, share in found.items() if not share < LARGEST[kind(name)]}
    assert not loud


def test_the_front_end_of_full_size_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the small start, an untrained block is 97 % of what the stacks hear."""
    joint = model("cascaded", FrontAids(identity_start=False))
    found = shares(joint, Speech(0).batch(4), monkeypatch)
    assert found["front.block"] > 0.9


def test_every_bypass_starts_half_way() -> None:
    scales = [m.scale for m in model("parallel").modules() if isinstance(m, Bypass)]
    assert len(scales) == 2 * 5 + 1
    assert all(bool((scale == 0.5).all()) for scale in scales)


def test_biases_of_scaled_layers_start_within_a_tenth_of_their_scale() -> None:
    """Published, and not what scaling torch's own biases down would give."""
    joint = model("cascaded")
    scales = {"feedforward": 0.1, "nonlinear": 0.05, "attention": 0.05, "conv": 0.05}
    for layer in joint.modules():
        if isinstance(layer, ZipformerLayer):
            biases = [(layer.weights.in_projection.bias, 32**-0.25)]
            biases += [
                (child.out_projection.bias, scales[kind(name)])
                for name, child in layer.named_children()
                if kind(name) in scales
            ]
            for bias, scale in biases:
                assert 0.085 * scale < float(bias.abs().max()) <= 0.1 * scale
