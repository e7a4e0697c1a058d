"""Offline filterbank: options, window arithmetic, and agreement with lhotse's default `Fbank`."""

import dataclasses
import math
import subprocess
import sys

import pytest
import torch

from dualasr_lib.core.silence import LOG_MEL_SILENCE
from dualasr_lib.features.fbank import Fbank, FbankConfig

CONFIG = FbankConfig()


def _noise(num_samples: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(num_samples, generator=generator)


def test_window_arithmetic_is_that_of_25_and_10_ms() -> None:
    assert (CONFIG.shift, CONFIG.window, CONFIG.overhang, CONFIG.min_samples) == (
        160,
        400,
        120,
        200,
    )
    assert [CONFIG.num_frames(n) for n in (79, 80, 239, 240, 16000)] == [0, 1, 1, 2, 100]


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"num_mel_bins": 0}, "num_mel_bins"),
        ({"sample_rate": -1}, "sample_rate"),
        ({"frame_shift_ms": 10.01}, "`frame_shift_ms` must be 10: chunks, latencies"),
        ({"frame_shift_ms": 20.0, "frame_length_ms": 50.0}, "must be 10: .* but is 20.0"),
        ({"frame_shift_ms": float("nan")}, "`frame_shift_ms` must be 10"),
        ({"frame_length_ms": 15.0}, "frame_length_ms"),
        ({"dither": 1.0}, "dither"),
        ({"snip_edges": True}, "snip_edges"),
        ({"high_freq": 9000.0}, "high_freq"),
        ({"high_freq": -7990.0}, "low_freq"),
    ],
)
def test_impossible_options_are_refused_by_name(changes: dict[str, float], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        dataclasses.replace(CONFIG, **changes)


@pytest.mark.parametrize("num_samples", [200, 239, 240, 399, 400, 1599, 1601, 16000, 34567])
def test_equals_lhotse(num_samples: int) -> None:
    pytest.importorskip("_kaldifeat")
    lhotse = pytest.importorskip("lhotse")
    samples = _noise(num_samples)
    expected = torch.from_numpy(lhotse.Fbank().extract(samples.numpy(), 16000))
    features = Fbank(CONFIG)(samples)
    assert features.shape == (CONFIG.num_frames(num_samples), 80)
    torch.testing.assert_close(features, expected, atol=1e-3, rtol=0)


def test_equals_kaldifeats_own_framing() -> None:
    pytest.importorskip("_kaldifeat")
    kaldifeat = pytest.importorskip("kaldifeat")
    options = kaldifeat.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = False
    options.mel_opts.num_bins = 80
    options.mel_opts.high_freq = -400
    samples = _noise(12345)
    expected = kaldifeat.Fbank(options)(samples)
    torch.testing.assert_close(Fbank(CONFIG)(samples), expected, atol=1e-4, rtol=0)


def test_options_reach_kaldifeat() -> None:
    pytest.importorskip("_kaldifeat")
    samples = _noise(8000)
    config = FbankConfig(sample_rate=8000, num_mel_bins=23, frame_length_ms=50.0)
    assert Fbank(config)(samples).shape == (100, 23)
    narrow = Fbank(FbankConfig(low_freq=300.0, high_freq=3400.0))(samples)
    assert (narrow - Fbank(CONFIG)(samples)).abs().max() > 0.1


def test_silence_has_the_pad_value() -> None:
    pytest.importorskip("_kaldifeat")
    assert math.isclose(LOG_MEL_SILENCE, -15.9424, abs_tol=1e-4)
    features = Fbank(CONFIG)(torch.zeros(1600))
    torch.testing.assert_close(features, torch.full((10, 80), LOG_MEL_SILENCE))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (torch.zeros(199), "at least 200 samples, but holds 199"),
        (torch.zeros(0), "holds 0"),
        (torch.zeros(1, 1600), r"\(1, 1600\)"),
        (torch.zeros(1600, dtype=torch.float64), "float64"),
    ],
)
def test_wrong_audio_is_a_clear_error(samples: torch.Tensor, message: str) -> None:
    pytest.importorskip("_kaldifeat")
    with pytest.raises(ValueError, match=message):
        Fbank(CONFIG)(samples)


def test_module_works_without_kaldifeat_until_it_is_used() -> None:
    program = """
import sys
sys.modules["_kaldifeat"] = None  # as if kaldifeat were not installed
from dualasr_lib.features.fbank import Fbank, FbankConfig
from dualasr_lib.features.online import OnlineFbank
OnlineFbank(FbankConfig()).init_state(2)
try:
    Fbank(FbankConfig())
except ModuleNotFoundError as error:
    print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "kaldifeat" in result.stdout
    assert "tools/setup.sh" in result.stdout
