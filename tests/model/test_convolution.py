"""Toeplitz convolutions against torch's depthwise conv1d, values and gradients."""

import pytest
import torch
import torch.nn.functional as F
from gradients import compare_gradients
from torch import Tensor

from dualasr_lib.model.zipformer.convolution import (
    ChunkCausalConv,
    ConvolutionModule,
    SymmetricConv,
    gated,
)
from dualasr_lib.model.zipformer.regularise import Balancer
from dualasr_lib.model.zipformer.training_aids import Aids


def depthwise(x: Tensor, weight: Tensor, left: int, right: int) -> Tensor:
    """Slow reference: (N, T, C) with (C, K)."""
    padded = F.pad(x.transpose(1, 2), (left, right))
    return F.conv1d(padded, weight[:, None], groups=weight.shape[0]).transpose(1, 2)


def slow_chunk_causal(conv: ChunkCausalConv, x: Tensor, cache: Tensor, chunk: int) -> Tensor:
    """The published description, chunk by chunk."""
    reach, scale = conv.kernel // 2, conv.edge(chunk).t()
    history = torch.cat([cache, x], dim=1)
    past = depthwise(history, conv.causal_weight, 0, 0) + conv.causal_bias
    inside = []
    for part in x.split(chunk, dim=1):
        centred = depthwise(part, conv.chunk_weight, reach, reach) + conv.chunk_bias
        inside.append(centred * scale)
    return past + torch.cat(inside, dim=1)


@pytest.mark.parametrize("kernel", [3, 7, 31])
@pytest.mark.parametrize("chunk", [2, 8, 32])
def test_chunk_causal(kernel: int, chunk: int) -> None:
    torch.manual_seed(kernel * chunk)
    conv = ChunkCausalConv(5, kernel).double()
    x = torch.randn(2, 3 * chunk, 5, dtype=torch.float64, requires_grad=True)
    cache = torch.randn(2, kernel // 2, 5, dtype=torch.float64)
    got, expected = (
        conv(x, cache, conv.constants(chunk), None),
        slow_chunk_causal(conv, x, cache, chunk),
    )
    torch.testing.assert_close(got, expected)
    inputs = [x, *conv.parameters()]
    weight = torch.randn_like(got)
    for a, b in zip(
        torch.autograd.grad((got * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("frames", [1, 15, 16, 17, 50])
@pytest.mark.parametrize("kernel", [3, 15])
def test_symmetric(frames: int, kernel: int) -> None:
    conv = SymmetricConv(4, kernel).double()
    x = torch.randn(3, frames, 4, dtype=torch.float64)
    expected = depthwise(x, conv.weight, kernel // 2, kernel // 2) + conv.bias
    torch.testing.assert_close(conv(x, x[:, :0], conv.constants(None), None), expected)


@pytest.mark.parametrize("kernel", [3, 15])
def test_full_context_is_one_chunk_per_utterance(kernel: int) -> None:
    """Padding to a longer batch changes nothing, and each utterance has edges of its own."""
    torch.manual_seed(kernel)
    conv, lens = ChunkCausalConv(4, kernel).double(), (1, 9, 40, 33)
    x = torch.randn(4, 40, 4, dtype=torch.float64)
    padding = torch.arange(40)[None, :, None] >= torch.tensor(lens)[:, None, None]
    got = conv(x.masked_fill(padding, 0.0), x[:, :0], conv.constants(None), padding)
    for i, n in enumerate(lens):
        cache = torch.zeros(1, kernel // 2, 4, dtype=torch.float64)
        expected = slow_chunk_causal(conv, x[i : i + 1, :n], cache, n)
        torch.testing.assert_close(got[i : i + 1, :n], expected)


def test_gate_with_and_without_a_balancer() -> None:
    torch.manual_seed(0)
    x = (2.0 * torch.randn(4, 30, 10) + 1.0).requires_grad_()
    balancer = Balancer(5, positive=(0.05, 0.5), absolute=(0.2, 1.0), prob=1.0, grad_scale=0.3)
    value, gate = x.chunk(2, dim=2)
    torch.testing.assert_close(gated(x), value * gate.sigmoid())
    compare_gradients(gated(x), value * gate.sigmoid(), (x,))
    incoming = torch.randn_like(value)
    torch.manual_seed(1)  # of the draws, and so of the frames that are looked at
    (expected,) = torch.autograd.grad(value * balancer(gate).sigmoid(), x, incoming)
    torch.manual_seed(1)
    (got,) = torch.autograd.grad(gated(x, balancer.draw(3)), x, incoming)
    (plain,) = torch.autograd.grad(gated(x), x, incoming)
    torch.testing.assert_close(got, expected)
    assert float((got - plain).norm() / plain.norm()) > 0.05


def test_edge_scale_of_short_and_long_chunks() -> None:
    conv = ChunkCausalConv(1, 5)
    with torch.no_grad():
        conv.edge_scale.copy_(torch.arange(10.0).reshape(2, 1, 5))
    assert conv.edge(3)[0].tolist() == [1 + 0 + 7, 1 + 1 + 8, 1 + 2 + 9]
    assert conv.edge(6)[0].tolist() == [1 + 0, 1 + 1 + 5, 1 + 2 + 6, 1 + 3 + 7, 1 + 4 + 8, 1 + 9]


def test_errors_name_what_must_hold() -> None:
    with pytest.raises(ValueError, match="must be odd, but is 4"):
        ConvolutionModule(8, 4, causal=True, aids=Aids(False))
