"""Windows of keys, masks inside them, and the choice of the cut."""

import pytest
import torch

from dualasr_lib.model.zipformer.band import (
    MASKED,
    Window,
    band_mask,
    best_window,
    merge,
    split_keys,
    split_queries,
)
from dualasr_lib.model.zipformer.streaming import ChunkSpec


@pytest.mark.parametrize("window", [Window(1, 12, 12), Window(3, 4, 10), Window(2, 8, 11)])
def test_windows_hold_what_lies_before_and_in_a_block(window: Window) -> None:
    frames, heads, width = 12, 3, 2
    x = torch.randn(2, frames, heads * width, dtype=torch.float64)
    cache = torch.randn(2, window.left, heads, width, dtype=torch.float64)
    missing = window.blocks * window.block - frames
    joined = torch.cat([cache.flatten(2), x, torch.zeros(2, missing, heads * width)], dim=1)
    keys, following = split_keys(x, cache, window)
    wanted = joined[:, frames : frames + window.left]
    assert torch.equal(following.flatten(2), wanted)
    queries = split_queries(x, heads, window)
    for n in range(2):
        for b in range(window.blocks):
            start = b * window.block
            wanted = joined[n, start : start + window.width].unflatten(1, (heads, width))
            assert torch.equal(keys[:, n * window.blocks + b], wanted.transpose(0, 1))
            own = wanted[window.left :].transpose(0, 1)
            assert torch.equal(queries[:, n * window.blocks + b], own)
    assert torch.equal(merge(queries, frames, window), x)


def test_gradients_of_windows() -> None:
    x = torch.randn(2, 10, 4, dtype=torch.float64, requires_grad=True)
    cache = torch.randn(2, 5, 2, 2, dtype=torch.float64, requires_grad=True)
    for window in (Window(3, 4, 9), Window(1, 10, 15), Window(5, 2, 7)):
        torch.autograd.gradcheck(lambda a, b, w=window: split_keys(a, b, w), (x, cache))


@pytest.mark.parametrize(("frames", "left"), [(2, 2), (2, 6), (4, 4), (6, None)])
def test_mask_shows_chunk_and_left_context(frames: int, left: int | None) -> None:
    chunk, total = ChunkSpec(frames=frames, left=left), 12
    windows = [Window(1, total, total)]
    if left is not None:
        windows += [Window(-(-total // (n * frames)), n * frames, n * frames + left)
                    for n in (1, 2)]  # fmt: skip
    for window in windows:
        mask = band_mask(window, chunk, torch.device("cpu"))
        assert mask.shape == (1, window.blocks, window.block, window.width)
        for b in range(window.blocks):
            for i in range(window.block):
                for j in range(window.width):
                    query = b * window.block + i
                    key = b * window.block - window.left + j
                    behind = query // frames - key // frames
                    seen = key >= 0 and behind >= 0
                    if left is not None:
                        seen = seen and behind <= left // frames
                    assert float(mask[0, b, i, j]) == (0.0 if seen else MASKED)


def test_long_utterances_are_cut_and_cost_grows_with_their_length() -> None:
    chunk = ChunkSpec(frames=32, left=128)

    def scores(num_frames: int) -> int:
        window = best_window(num_frames, chunk)
        assert window.blocks * window.block >= num_frames
        assert window.block % chunk.frames == 0
        return window.blocks * window.block * window.width

    assert best_window(64, chunk) == Window(1, 64, 64)
    assert best_window(640, ChunkSpec(frames=32, left=None)) == Window(1, 640, 640)
    assert best_window(2560, chunk).blocks > 1
    assert scores(20480) <= 8.2 * scores(2560)
    assert scores(2560) < 2560 * 2560 / 5
