"""The plain forms that run while a model is traced equal the fast ones, for every function that
has one.
"""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from dualasr_lib.model.zipformer import activations, attention, band, convolution, feedforward
from dualasr_lib.model.zipformer.activations import SWOOSH_L
from dualasr_lib.model.zipformer.attention import AttentionConfig
from dualasr_lib.model.zipformer.band import MASKED, Window
from dualasr_lib.model.zipformer.fused import run
from dualasr_lib.model.zipformer.layer import LayerConfig
from dualasr_lib.model.zipformer.stacks import StackConfig, Zipformer
from dualasr_lib.model.zipformer.streaming import ChunkSpec

H, B, W, D, P, N, COUNT = 2, 4, 9, 5, 3, 3, 2
MODULES = (activations, attention, band, convolution, feedforward)


def masked(shape: tuple[int, ...]) -> Tensor:
    return (torch.rand(shape) < 0.3) * MASKED


def scores(count: int, mask: Tensor, block: int = B, width: int = W) -> tuple[Any, ...]:
    rows = N * count
    q, k, p = (torch.randn(H, rows, *size) for size in ((block, D), (width, D), (block, P)))
    return q, k, p, torch.randn(H, width + block - 1, P), mask, False


CASES: dict[str, list[tuple[Any, ...]]] = {
    "_Weights": [
        scores(1, masked((N, 1, 1, W))),
        scores(COUNT, masked((1, COUNT, B, W))),
        scores(1, masked((N, 1, 1, 1)), 1, 1),
    ],
    "_Windows": [
        (torch.randn(N, W - B + 3 * B, H * D), H, Window(3, B, W)),
        (torch.randn(N, W, H * D), H, Window(1, B, W)),
        (torch.randn(N, 5 + 2 * 4, H * D), H, Window(2, 4, 9)),
    ],
    "_BlockwiseConv": [
        (torch.randn(N, 3 * 4 + 6, 5), torch.randn(5, 4, 10), torch.randn(4, 5)),
        (torch.randn(N, 4 + 3, 5), torch.randn(5, 4, 7), torch.randn(1, 5)),
    ],
    "_Activation": [
        (torch.randn(N, 3, 4, 5) * 9, SWOOSH_L, None, 1.0, torch.randn(N, 3, 2, 5)),
        (torch.randn(N, 7, 6) * 9, SWOOSH_L, None, 1.0, None),
    ],
    "_ActivationLinear": [
        (torch.randn(N, 7, 6) * 9, SWOOSH_L, torch.randn(4, 6), torch.randn(4)),
    ],
    "_FeedForward": [
        (
            *(torch.randn(*size) for size in ((N, 7, 6), (8, 6), (8,), (5, 8), (5,))),
            None,
            feedforward._How(torch.float32, None),
        ),
    ],
}


def functions() -> dict[str, Any]:
    found = [value for module in MODULES for value in vars(module).values()]
    return {value.__name__: value for value in found if hasattr(value, "plain")}


def test_every_plain_form_is_tried() -> None:
    assert functions().keys() == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_plain_equals_fast(name: str) -> None:
    function = functions()[name]
    for arguments in CASES[name]:
        with torch.no_grad():
            fast = run(function, *arguments)
        torch.testing.assert_close(function.plain(*arguments), fast, rtol=1e-5, atol=1e-5)


def test_a_traced_stack_equals_itself_at_other_lengths() -> None:
    """What a tracer sees: blocks of one length for all, positions in float32."""
    size = AttentionConfig(heads=2, query_head_dim=4, value_head_dim=4, position_dim=8)
    layer = LayerConfig(dim=8, feedforward=8, kernel=5, attention=size)
    configs = (StackConfig(layers=1, layer=layer), StackConfig(downsampling=2, layer=layer))
    stacks = Zipformer(configs, causal=True).eval()
    chunk = ChunkSpec(frames=4, left=16)

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stacks = stacks

        def forward(self, x: Tensor) -> Tensor:
            return self.stacks.forward_chunks(x, chunk)

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(Whole(), torch.randn(2, 64, 8), check_trace=False)
        for blocks in (1, 2, 5, 11):
            x = torch.randn(3, 8 * blocks, 8)
            torch.testing.assert_close(traced(x), Whole()(x), rtol=1e-4, atol=1e-4)
