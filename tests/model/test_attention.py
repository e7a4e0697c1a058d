"""Relative positions, masks and attention against index-by-index references."""

import math

import pytest
import torch
from torch import Tensor

from dualasr_lib.model.zipformer.attention import (
    AttentionConfig,
    AttentionWeights,
    relative_view,
    uniform_weights,
)
from dualasr_lib.model.zipformer.band import MASKED, Window
from dualasr_lib.model.zipformer.context import (
    chunk_context,
    full_context,
    position_encoding,
    step_context,
)
from dualasr_lib.model.zipformer.streaming import ChunkSpec, keep_last, unfilled
from dualasr_lib.model.zipformer.training_aids import Aids


@pytest.mark.parametrize(("block", "left"), [(1, 0), (5, 0), (4, 7)])
def test_relative_view_picks_the_distance(block: int, left: int) -> None:
    width = left + block
    scores = torch.randn(2, 3, block, width + block - 1)
    by_key = relative_view(scores, width)
    assert by_key.shape == (2, 3, block, width)
    for t in range(block):
        for k in range(width):
            assert torch.equal(by_key[:, :, t, k], scores[:, :, t, block - 1 - t + k])


def test_position_encoding_depends_on_distance_only() -> None:
    """Row i is distance W - 1 - i, whatever the window is; the values follow the formula."""
    wide, narrow = Window(1, 3, 9), Window(1, 5, 5)
    a, b = (position_encoding(window, 8, torch.device("cpu")) for window in (wide, narrow))
    assert a.shape == (9 + 3 - 1, 8) and b.shape == (9, 8)
    torch.testing.assert_close(a[8 - 4 : 8 + 3], b[0:7])  # distances 4 ... -2
    distance, width = 3, math.sqrt(8)
    angle = math.atan(width * (math.log(distance + width) - math.log(width)) * 2 * math.pi / 8)
    expected = [f((k) * angle) for k in range(1, 5) for f in (math.cos, math.sin)][:-1] + [1.0]
    torch.testing.assert_close(b[4 - distance], torch.tensor(expected))


def test_full_context_hides_padding_and_a_step_hides_unfilled_caches() -> None:
    padding = torch.tensor([[False, False, False], [False, True, True]])
    context = full_context(padding)
    assert (context.mask == MASKED).int()[:, 0, 0].tolist() == [[0, 0, 0], [0, 1, 1]]
    empty = unfilled(torch.tensor([0, 1, 9]), 3)
    context = step_context(empty, 2)
    hidden = (context.mask == MASKED).int()[:, 0, 0].tolist()
    assert hidden == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert context.window == Window(1, 2, 5)


def test_uniform_weights_hear_all_that_is_visible() -> None:
    context = chunk_context(40, ChunkSpec(frames=4, left=8), torch.device("cpu"))
    shape = (2, 3 * context.window.blocks, context.window.block, context.window.width)
    weights = uniform_weights(torch.rand(shape), context)
    assert weights.shape == (1, *shape[1:])
    torch.testing.assert_close(weights.sum(3), torch.ones_like(weights[..., 0]))
    hidden = (context.mask != 0).expand(3, -1, -1, -1).reshape(weights.shape)
    assert bool((weights[hidden] == 0).all()) and bool((weights[~hidden] > 0).all())


def test_large_scores_are_pushed_back_and_masked_ones_are_not() -> None:
    torch.manual_seed(0)
    aids = Aids(True)
    module = AttentionWeights(10, AttentionConfig(heads=2, query_head_dim=4), aids).double()
    with torch.no_grad():
        module.in_projection.weight.mul_(60.0)
    context = chunk_context(16, ChunkSpec(frames=4, left=4), torch.device("cpu"))
    positions = position_encoding(context.window, 48, torch.device("cpu"))
    x = torch.randn(2, 16, 10, dtype=torch.float64)
    direction = torch.randn(
        2, 2 * context.window.blocks, context.window.block, context.window.width
    )

    def gradient(rate: float) -> Tensor:
        module.penalty_rate = rate
        weights, _ = module.train()(
            x, context, module.table(positions, 0.0), x.new_zeros(2, context.window.left, 2, 4)
        )
        module.zero_grad()
        (weights * direction).sum().backward()
        grad = module.in_projection.weight.grad
        assert grad is not None
        return grad.clone()

    for child in (module.whiten_keys, module.balance_keys):
        child.eval()
    plain, penalised = gradient(0.0), gradient(1.0)
    change = penalised - plain
    assert float(change.abs().max()) > 0
    # the added gradient makes scores smaller: it points along the weights that are too large
    assert float((change * module.in_projection.weight).sum()) > 0


def test_keep_last() -> None:
    cache, x = torch.arange(3.0).view(1, 3, 1), torch.arange(3.0, 8.0).view(1, 5, 1)
    assert keep_last(cache, x).flatten().tolist() == [5, 6, 7]
    assert keep_last(cache, x[:, :2]).flatten().tolist() == [2, 3, 4]
    assert keep_last(cache[:, :0], x).shape == (1, 0, 1)


def test_chunk_spec_says_what_must_hold() -> None:
    assert ChunkSpec.from_ms(320, 2000) == ChunkSpec(frames=16, left=112)
    with pytest.raises(ValueError, match="multiple of 20 ms, but is 330 ms"):
        ChunkSpec.from_ms(330, 2000)
    for chunk_ms, left_ms in ((320, 10**20), (2 * 10**19, 640)):
        with pytest.raises(ValueError, match="must be at most 3600000 ms"):
            ChunkSpec.from_ms(chunk_ms, left_ms)
    with pytest.raises(ValueError, match="multiple of the chunk"):
        ChunkSpec(frames=16, left=24)
    with pytest.raises(ValueError, match="6 is not one of 4"):
        ChunkSpec(frames=6, left=6).downsampled(4)
