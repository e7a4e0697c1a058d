"""Digital silence is heard as a quiet room; whatever is louder, as it is."""

import math

import pytest
import torch

from dualasr_lib.core.silence import LOG_MEL_SILENCE
from dualasr_lib.features.fbank import Fbank, FbankConfig
from dualasr_lib.features.quiet import QUIET_ROOM, heard_silence, quiet_frame

CONFIG = FbankConfig()


def noise(level: float, seconds: float = 4.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return level * torch.randn(int(16000 * seconds), generator=generator)


@pytest.mark.parametrize("config", [CONFIG, FbankConfig(sample_rate=8000, high_freq=-200.0)])
def test_the_quiet_room_has_white_noise(config: FbankConfig) -> None:
    """Its mean energies, where they are not under the floor of the features."""
    loud = Fbank(config)(noise(100 * QUIET_ROOM, 20.0)).exp().mean(dim=0).log()
    expected = (loud - 2 * math.log(100)).clamp(min=LOG_MEL_SILENCE)
    assert torch.allclose(quiet_frame(config), expected, atol=0.2)
    assert quiet_frame(config).max() > LOG_MEL_SILENCE + 5


@pytest.mark.parametrize(
    "samples",
    [
        torch.zeros(1600),
        torch.full((1600,), 0.5),  # a constant is no sound
        torch.full((1600,), 1e-5),
        noise(1e-6, 0.1),
    ],
)
def test_what_is_silent(samples: torch.Tensor) -> None:
    quiet, features = quiet_frame(CONFIG), Fbank(CONFIG)(samples)[None]
    heard = heard_silence(features, torch.tensor([features.shape[1]]), quiet)
    assert torch.equal(heard[0], quiet.expand_as(features[0]))


def test_what_is_louder_is_untouched() -> None:
    quiet = quiet_frame(CONFIG)
    for samples in (
        noise(QUIET_ROOM),
        noise(0.1),
        0.003 * torch.sin(torch.arange(16000) * 0.3),  # in a few bins only
    ):
        features = Fbank(CONFIG)(samples)[None]
        heard = heard_silence(features, torch.tensor([features.shape[1]]), quiet)
        assert torch.equal(heard, features)


def test_frames_behind_the_end_stay() -> None:
    features = torch.full((2, 5, 80), LOG_MEL_SILENCE)
    quiet = quiet_frame(CONFIG)
    heard = heard_silence(features, torch.tensor([5, 2]), quiet)
    assert torch.equal(heard[0], quiet.expand(5, 80))
    assert torch.equal(heard[1, :2], quiet.expand(2, 80))
    assert torch.equal(heard[1, 2:], features[1, 2:])
