"""Audio files as streams of blocks: formats, rates, channels, and what is refused."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("soundfile")

import soundfile

from dualasr_lib.data.audio import open_audio

Write = Callable[..., Path]


def noise(size: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.5, 0.5, (size, channels)).astype(np.float32)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """(samples, name, rate, subtype) -> file."""

    def make(samples: np.ndarray, name: str = "a.wav", rate: int = 16000, **options: str) -> Path:
        soundfile.write(tmp_path / name, samples, rate, **options)
        return tmp_path / name

    return make


def read(path: Path, num_samples: int = 5120) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(list(open_audio(path).blocks(num_samples))))


@pytest.mark.parametrize("num_samples", [1, 160, 5120, 16000, 100_000])
def test_blocks_are_the_samples(write: Write, num_samples: int) -> None:
    samples = noise(2500 if num_samples == 1 else 40_001)
    blocks = list(open_audio(write(samples, subtype="FLOAT")).blocks(num_samples))
    assert all(len(block) == num_samples for block in blocks[:-1])
    assert 0 < len(blocks[-1]) <= num_samples
    assert blocks[0].dtype == np.float32
    assert np.array_equal(np.concatenate(blocks), samples[:, 0])


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_resampled_blocks_equal_one_shot(
    write: Write, rate: int, channels: int, caplog: pytest.LogCaptureFixture
) -> None:
    soxr = pytest.importorskip("soxr")
    samples = noise(2 * rate + 77, channels)
    with caplog.at_level(logging.INFO):
        audio = open_audio(write(samples, rate=rate, subtype="FLOAT"))
    assert f"{rate} Hz, {channels} channel" in caplog.text
    assert "-> 16000 Hz, mono" in caplog.text
    assert (audio.num_channels, audio.file_sample_rate) == (channels, rate)
    assert audio.duration == pytest.approx(2 + 77 / rate)
    expected = soxr.resample(samples.mean(axis=1, dtype=np.float32), rate, 16000)
    for num_samples in (333, 5120):
        assert np.array_equal(np.concatenate(list(audio.blocks(num_samples))), expected)


def test_a_tone_keeps_its_pitch_and_level(write: Write) -> None:
    pytest.importorskip("soxr")
    time = np.arange(44100) / 44100
    tone = np.stack([0.5 * np.sin(2 * np.pi * 440 * time)] * 2, axis=1).astype(np.float32)
    got = read(write(tone, rate=44100))
    expected = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(16000) / 16000)
    assert len(got) == 16000
    assert float((got - expected)[200:-200].abs().max()) < 1e-3


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_formats(write: Write, name: str) -> None:
    """Blocks of mp3 and ogg are as good as the file at once: nothing is lost at their borders."""
    tone = (0.3 * np.sin(np.arange(48000) * 0.02)).astype(np.float32)
    path = write(tone, name)
    got = read(path).numpy()
    assert len(got) == 48000
    assert float(np.corrcoef(got, tone)[0, 1]) > 0.999
    at_once, _ = soundfile.read(path, dtype="float32")
    assert float(np.abs(got - at_once).max()) < 1e-6


def test_nothing_is_said_of_a_file_that_needs_no_conversion(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        read(write(noise(1000)))
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff", "a.ogg", "a.mp3", "a.w64"])
def test_files_cut_short(write: Write, name: str) -> None:
    tone = (0.3 * np.sin(np.arange(48000) * 0.1)).astype(np.float32)
    path = write(tone, name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=name) as error:
        read(path)
    assert "\n" not in str(error.value)


def test_a_damaged_flac_file(write: Write) -> None:
    path = write(noise(48000), "a.flac")
    content = bytearray(path.read_bytes())
    content[40_000:40_600] = bytes(600)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.flac: must hold 3\.00 s .* cannot be read up to"):
        read(path)


def test_a_wav_file_from_a_pipe_promises_too_much(write: Write) -> None:
    path = write(noise(1600), subtype="PCM_16")
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert len(read(path)) == 1600


def test_a_flac_file_from_a_pipe_does_not_know_its_length(write: Write) -> None:
    path = write(noise(40_000), "a.flac")
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the last 36 bits before the checksum of the first block
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert open_audio(path).duration == 2.5
    assert len(read(path)) == 40_000
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"a\.flac: cannot be read beyond"):
        open_audio(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers(write: Write, value: float) -> None:
    samples = noise(40_000, 2)
    samples[24_000, 1] = value
    with pytest.raises(ValueError, match=r"a\.wav: .*NaN or infinity at 1\.500 s"):
        read(write(samples, subtype="FLOAT"))


def test_clipping_is_a_warning(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    read(write(np.clip(2.2 * noise(16000), -1, 1)))
    assert "clipped" in caplog.text
    caplog.clear()
    read(write(noise(16000)))
    assert caplog.text == ""


def test_what_is_no_audio(tmp_path: Path, write: Write) -> None:
    (tmp_path / "text.wav").write_text("this is no audio " * 100)
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "a.raw").write_bytes(bytes(1000))
    cases = {
        "missing.wav": "no such file",
        "text.wav": "must be audio",
        "empty.wav": "0 bytes",
        "a.raw": "must be audio",
        write(noise(0), "none.wav").name: "0 samples",
        ".": "is a folder",
    }
    for name, message in cases.items():
        with pytest.raises(ValueError, match=message) as error:
            open_audio(tmp_path / name)
        assert str(error.value).startswith(str(tmp_path / name))
        assert "\n" not in str(error.value)


def test_samples_of_16_bits_in_a_file_of_floats(write: Write) -> None:
    samples = noise(40_000) * 0
    samples[24_000] = 12000.0
    with pytest.raises(ValueError, match=r"a\.wav: .*12000 .*32768\) at 1\.500 s"):
        read(write(samples, subtype="FLOAT"))


def test_a_path_may_be_a_string(write: Write) -> None:
    path = write(noise(1000))
    audio = open_audio(str(path))
    assert audio.path == path
    assert sum(map(len, audio.blocks(100))) == 1000


def test_blocks_of_no_samples(write: Write) -> None:
    with pytest.raises(ValueError, match="num_samples"):
        next(open_audio(write(noise(10))).blocks(0))


@pytest.mark.parametrize(
    ("left", "right", "warned"),
    [(1.0, -1.0, True), (1.0, -0.999, True), (1.0, 1.0, False), (1.0, 0.0, False), (0, 0, False)],
)
def test_channels_that_cancel_are_told(
    tmp_path: Path, left: float, right: float, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Their mean is silence: nothing would be recognised, and nobody would know why."""
    tone = 0.3 * np.sin(np.arange(40000) / 7)
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([left * tone, right * tone], axis=1), 16000)
    for _ in open_audio(path).blocks(16000):
        pass
    assert any("2 channels cancel each other" in r.getMessage() for r in caplog.records) == warned


@pytest.mark.parametrize(
    ("samples", "warned"),
    [
        (np.zeros(8000), True),
        (np.full(8000, 0.4), True),  # a constant is no sound
        (1e-4 * np.sin(np.arange(8000) / 7), True),
        (1e-2 * np.sin(np.arange(8000) / 7), False),
        (np.r_[np.zeros(7999), 0.1], False),
    ],
)
def test_an_empty_recording_is_told(
    tmp_path: Path, samples: np.ndarray, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "quiet.wav"
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    for _ in open_audio(path).blocks(16000):
        pass
    assert any("hardly a sound is in it" in r.getMessage() for r in caplog.records) == warned


@pytest.mark.parametrize("rate", [1, 999, 768001])
def test_a_rate_that_cannot_be_names_the_file(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "odd.wav"
    soundfile.write(path, np.zeros(100), rate)
    with pytest.raises(ValueError, match=rf"odd\.wav: a sample rate must be .* but is {rate}"):
        open_audio(path)
