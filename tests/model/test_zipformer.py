"""The fast Zipformer against the slow one: outputs to 1e-5 and gradients to 1e-4 (float32), and to
rounding in float64, over chunks, lengths and ways of cutting the attention band.
"""

import pytest
import torch
from joint_cases import stir
from slow_zipformer import slow_forward
from torch import Tensor

from dualasr_lib.model.zipformer import context
from dualasr_lib.model.zipformer.attention import AttentionConfig
from dualasr_lib.model.zipformer.band import Window
from dualasr_lib.model.zipformer.layer import LayerConfig
from dualasr_lib.model.zipformer.stacks import StackConfig, Zipformer
from dualasr_lib.model.zipformer.streaming import ChunkSpec


def zipformer(causal: bool = True) -> Zipformer:
    attention = AttentionConfig(heads=2, query_head_dim=8, value_head_dim=4, position_dim=8)

    def stack(layers: int, factor: int, dim: int) -> StackConfig:
        layer = LayerConfig(dim=dim, feedforward=32, kernel=7, attention=attention)
        return StackConfig(layers=layers, downsampling=factor, layer=layer)

    torch.manual_seed(1)
    encoder = Zipformer((stack(1, 1, 16), stack(2, 4, 24), stack(1, 2, 16)), causal)
    stir(encoder)
    return encoder.eval()


def compare(encoder: Zipformer, got: Tensor, expected: Tensor, x: Tensor) -> None:
    value, slope = (1e-10, 1e-9) if x.dtype == torch.float64 else (1e-5, 1e-4)
    assert float((got - expected).abs().max()) <= value * float(expected.abs().max())
    direction = torch.randn_like(expected)
    inputs = [x, *encoder.parameters()]
    for a, b in zip(
        torch.autograd.grad((got * direction).sum(), inputs),
        torch.autograd.grad((expected * direction).sum(), inputs),
    ):
        # a bias of keys has no effect on a softmax: compare with the gradients' usual size
        assert float((a - b).abs().max()) <= slope * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("frames", "left"), [(8, 8), (16, 32), (32, 64), (64, None)])
def test_chunks(frames: int, left: int | None, dtype: torch.dtype) -> None:
    encoder, chunk = zipformer().to(dtype), ChunkSpec(frames=frames, left=left)
    x = torch.randn(2, 320, 16, dtype=dtype, requires_grad=True)
    compare(encoder, encoder.forward_chunks(x, chunk), slow_forward(encoder, x, chunk), x)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("frames", [40, 64])
def test_full_context(frames: int, causal: bool) -> None:
    encoder = zipformer(causal).double()
    x = torch.randn(2, frames, 16, dtype=torch.float64, requires_grad=True)
    got = encoder.forward_full(x, torch.full((2,), frames))
    compare(encoder, got, slow_forward(encoder, x, None), x)


@pytest.mark.parametrize("chunks_per_block", [1, 2, 3, 5])
def test_every_cut_of_the_band_gives_the_same(
    chunks_per_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10 chunks in blocks of 1, 2, 3 (the last one is not full) and 5."""

    def cut(num_frames: int, chunk: ChunkSpec) -> Window:
        assert chunk.left is not None
        block = chunks_per_block * chunk.frames
        return Window(-(-num_frames // block), block, block + chunk.left)

    monkeypatch.setattr(context, "best_window", cut)
    encoder, chunk = zipformer().double(), ChunkSpec(frames=8, left=24)
    x = torch.randn(2, 80, 16, dtype=torch.float64, requires_grad=True)
    compare(encoder, encoder.forward_chunks(x, chunk), slow_forward(encoder, x, chunk), x)
