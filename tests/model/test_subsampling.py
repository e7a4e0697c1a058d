"""The front end: its depthwise convolution's gradient, look-ahead, configuration errors."""

import pytest
import torch
import torch.nn.functional as F
from gradients import compare_gradients

from dualasr_lib.model.zipformer.subsampling import (
    ConvSubsampling,
    SubsamplingConfig,
    depthwise_conv,
)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("frames", "bins"), [(1, 3), (10, 19), (33, 7)])
def test_depthwise_gradients(frames: int, bins: int, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, frames + 6, bins, dtype=torch.float64).to(memory_format=layout)
    x.requires_grad_()
    weight = torch.randn(5, 1, 7, 7, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)
    convolved = F.conv2d(x, weight, bias, padding=(0, 3), groups=5)
    got, same = depthwise_conv(x, weight, bias, 2)
    torch.testing.assert_close(got, convolved)
    assert torch.equal(same, x[:, :, 2 : 2 + frames])
    factor = torch.randn_like(same)
    expected = convolved + factor * x[:, :, 2 : 2 + frames]
    compare_gradients(got + factor * same, expected, (x, weight, bias))


def test_published_look_ahead_is_130_ms() -> None:
    config = SubsamplingConfig(future=(2, 1, 2, 3))
    assert ConvSubsampling(config, 80, 192).lookahead == 13


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="future 4"):
        SubsamplingConfig(future=(0, 0, 0))
    with pytest.raises(ValueError, match=r"must lie in \(0..2, 0..1, 0..2, 0..6\)"):
        SubsamplingConfig(future=(0, 2, 0, 0))
    front = ConvSubsampling(SubsamplingConfig(), 80, 16)
    with pytest.raises(ValueError, match="multiple of 2 frames plus"):
        front.step(torch.zeros(1, 5, 80), front.init_state(1, torch.device("cpu")))
