"""Relative positions, masks and attention against index-by-index references."""

import math

import pytest
import torch

from dualasr_lib.model.attention import (
    AttentionConfig,
    AttentionWeights,
    position_encoding,
    relative_shift,
)
from dualasr_lib.model.streaming import ChunkSpec, Context, cache_mask, chunk_mask, keep_last


@pytest.mark.parametrize(("frames", "cached"), [(1, 0), (5, 0), (4, 7)])
def test_relative_shift_picks_the_distance(frames: int, cached: int) -> None:
    keys = cached + frames
    scores = torch.randn(2, 3, frames, frames + keys - 1)
    shifted = relative_shift(scores, keys)
    assert shifted.shape == (2, 3, frames, keys)
    for t in range(frames):
        for k in range(keys):
            assert torch.equal(shifted[:, :, t, k], scores[:, :, t, frames - 1 - t + k])


def test_position_encoding_depends_on_distance_only() -> None:
    """Row i is distance L + T - 1 - i, whatever L and T are; the values follow the formula."""
    a, b = (position_encoding(*size, 8, torch.device("cpu")) for size in ((6, 3), (0, 5)))
    assert a.shape == (6 + 2 * 3 - 1, 8) and b.shape == (9, 8)
    torch.testing.assert_close(a[8 - 4 : 8 + 3], b[0:7])  # distances 4 ... -2
    distance, width = 3, math.sqrt(8)
    angle = math.atan(width * (math.log(distance + width) - math.log(width)) * 2 * math.pi / 8)
    expected = [f((k) * angle) for k in range(1, 5) for f in (math.cos, math.sin)][:-1] + [1.0]
    torch.testing.assert_close(b[4 - distance], torch.tensor(expected))


def test_weights_match_a_loop() -> None:
    torch.manual_seed(0)
    config = AttentionConfig(heads=2, query_head_dim=4, position_head_dim=2, position_dim=6)
    module = AttentionWeights(10, config)
    x, cache = torch.randn(2, 3, 10), torch.randn(2, 4, 8)
    mask = torch.zeros(1, 1, 3, 7, dtype=torch.bool)
    mask[..., 0] = True
    positions = position_encoding(4, 3, 6, torch.device("cpu"))
    weights, _ = module(x, Context(mask, positions, None, None), cache)
    q, k, p = module.in_projection(x).split([8, 8, 4], dim=2)
    keys, table = torch.cat([cache, k], 1), module.position_projection(positions)
    for n in range(2):
        for head in range(2):
            for t in range(3):
                scores = torch.stack(
                    [
                        q[n, t, head * 4 : head * 4 + 4] @ keys[n, j, head * 4 : head * 4 + 4]
                        + p[n, t, head * 2 : head * 2 + 2]
                        @ table[3 - 1 - t + j, head * 2 : head * 2 + 2]
                        for j in range(7)
                    ]
                )
                scores[0] = -math.inf
                torch.testing.assert_close(weights[n, head, t], scores.softmax(0))


def test_chunk_mask_and_cache_mask() -> None:
    visible = ~chunk_mask(6, ChunkSpec(frames=2, left=2), torch.device("cpu"))[0, 0]
    expected = ["110000", "110000", "111100", "111100", "001111", "001111"]
    assert ["".join(str(int(v)) for v in row) for row in visible] == expected
    empty = cache_mask(torch.tensor([0, 1, 9]), 3, 2)[:, 0, 0]
    assert empty.int().tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]


def test_keep_last() -> None:
    cache, x = torch.arange(3.0).view(1, 3, 1), torch.arange(3.0, 8.0).view(1, 5, 1)
    assert keep_last(cache, x).flatten().tolist() == [5, 6, 7]
    assert keep_last(cache, x[:, :2]).flatten().tolist() == [2, 3, 4]
    assert keep_last(cache[:, :0], x).shape == (1, 0, 1)


def test_chunk_spec_says_what_must_hold() -> None:
    assert ChunkSpec.from_ms(320, 2000) == ChunkSpec(frames=16, left=112)
    with pytest.raises(ValueError, match="multiple of 20 ms, but is 330 ms"):
        ChunkSpec.from_ms(330, 2000)
    with pytest.raises(ValueError, match="multiple of the chunk"):
        ChunkSpec(frames=16, left=24)
    with pytest.raises(ValueError, match="6 is not one of 4"):
        ChunkSpec(frames=6, left=6).downsampled(4)
