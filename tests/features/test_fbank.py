"""Offline filterbank: options, window arithmetic, and agreement with lhotse's default `Fbank`."""

import dataclasses
import importlib.util
import math
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from dualasr_lib.core.silence import LOG_MEL_SILENCE
from dualasr_lib.features import fbank
from dualasr_lib.features.fbank import Fbank, FbankConfig, FrameComputer
from dualasr_lib.features.online import OnlineFbank

CONFIG = FbankConfig()
Computer = Callable[[FbankConfig], Callable[[torch.Tensor], torch.Tensor]]


@pytest.fixture(params=["kaldifeat", "kaldi_native_fbank"])
def computer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Computer:
    """Either library, where it is installed, as the one that `Fbank` and `OnlineFbank` take."""
    if request.param == "kaldifeat":
        pytest.importorskip("_kaldifeat")
        return fbank._kaldifeat_computer
    pytest.importorskip("kaldi_native_fbank")
    monkeypatch.setattr(fbank, "_computer", lambda config, _: fbank._native_computer(config))
    return fbank._native_computer


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
def test_equals_lhotse(computer: Computer, num_samples: int) -> None:
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


def test_options_reach_the_library(computer: Computer) -> None:
    samples = _noise(8000)
    config = FbankConfig(sample_rate=8000, num_mel_bins=23, frame_length_ms=50.0)
    assert Fbank(config)(samples).shape == (100, 23)
    narrow = Fbank(FbankConfig(low_freq=300.0, high_freq=3400.0))(samples)
    assert (narrow - Fbank(CONFIG)(samples)).abs().max() > 0.1


def test_silence_has_the_pad_value(computer: Computer) -> None:
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
def test_wrong_audio_is_a_clear_error(
    computer: Computer, samples: torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Fbank(CONFIG)(samples)


@pytest.mark.parametrize("num_samples", [200, 4321, 16000])
def test_both_libraries_give_the_same(num_samples: int) -> None:
    """Up to the rounding of their FFTs, which is far below what a model can tell apart."""
    pytest.importorskip("_kaldifeat")
    pytest.importorskip("kaldi_native_fbank")
    windows = _noise(num_samples + 400).unfold(0, CONFIG.window, CONFIG.shift)
    ours, theirs = FrameComputer(CONFIG, "kaldi_native_fbank"), FrameComputer(CONFIG, "kaldifeat")
    torch.testing.assert_close(ours(windows), theirs(windows), atol=1e-3, rtol=0)
    assert ours(windows[:0]).shape == (0, 80)


def test_a_window_with_nan_spoils_no_other() -> None:
    pytest.importorskip("kaldi_native_fbank")
    compute = FrameComputer(CONFIG, "kaldi_native_fbank")
    windows = _noise(1200).reshape(3, 400)
    broken = windows.clone()
    broken[1, 7], broken[2, 9] = math.nan, math.inf
    assert torch.equal(compute(broken)[0], compute(windows)[0])
    assert compute(broken)[1:].isnan().all()


def test_the_native_library_gives_the_same_online_to_the_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("kaldi_native_fbank")
    monkeypatch.setattr(fbank, "_computer", lambda config, _: fbank._native_computer(config))
    samples = _noise(4 * 5120 + CONFIG.overhang)  # what is whole windows needs no reflected tail
    online = OnlineFbank(CONFIG)
    state = online.init_state(2)
    parts = []
    for begin in range(0, 4 * 5120, 5120):
        window = samples[begin : begin + 5120 + CONFIG.overhang]
        features, state = online.step(torch.stack([window, window.flip(0)]), state)
        parts.append(features[0])
    frames = torch.cat(parts)
    assert frames.shape == (4 * 32, 80)
    assert torch.equal(frames, Fbank(CONFIG)(samples)[: len(frames)])


def _in_new_process(hidden: str) -> str:
    """What is printed where the modules `hidden` are not installed."""
    program = f"""
import sys
sys.modules.update(dict.fromkeys({hidden!r}.split()))
from dualasr_lib.features.fbank import Fbank, FbankConfig
from dualasr_lib.features.online import OnlineFbank
import torch
OnlineFbank(FbankConfig()).init_state(2)
try:
    print(tuple(Fbank(FbankConfig())(torch.zeros(1600)).shape))
    print([name for name in ("kaldifeat", "kaldi_native_fbank") if name in sys.modules])
except ModuleNotFoundError as error:
    print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return result.stdout


def test_module_works_without_both_libraries_until_it_is_used() -> None:
    said = _in_new_process("_kaldifeat kaldi_native_fbank")
    assert "features need kaldifeat or kaldi-native-fbank" in said
    assert "tools/setup.sh" in said


def test_without_kaldifeat_the_native_library_is_taken() -> None:
    pytest.importorskip("kaldi_native_fbank")
    assert _in_new_process("_kaldifeat") == "(10, 80)\n['kaldi_native_fbank']\n"


def test_kaldifeat_is_taken_where_it_is_built() -> None:
    if importlib.util.find_spec("_kaldifeat") is None:
        pytest.skip("kaldifeat is not built here")
    assert _in_new_process("").endswith("['kaldifeat']\n")
