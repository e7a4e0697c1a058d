"""Bad and odd audio files, for bad_inputs.py: speech, and what can be wrong with it."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
import torch

from dualasr_lib.data.audio import open_audio
from dualasr_lib.data.folder import DataFolder, recording_files

__all__ = ["CASES", "Case", "speech_of"]

Samples = npt.NDArray[np.float32]

_RATE = 16000
_SECONDS = 8


class Case(NamedTuple):
    """One file and what should come of it."""

    name: str
    what: str
    exit_code: int
    make: Callable[[Path, Samples], None]
    """Writes the file, given speech (n,) at 16 kHz."""


def _write(samples: Samples, rate: int = _RATE, **options: str) -> Callable[[Path], None]:
    return lambda path: soundfile.write(path, samples, rate, **options)


def _resampled(speech: Samples, rate: int) -> Samples:
    return np.asarray(soxr.resample(speech, _RATE, rate), dtype=np.float32)


def _cut_short(path: Path, speech: Samples) -> None:
    soundfile.write(path, speech, _RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _nan(path: Path, speech: Samples) -> None:
    broken = speech.copy()
    broken[3 * _RATE : 3 * _RATE + 10] = np.nan
    soundfile.write(path, broken, _RATE, subtype="FLOAT")


def _noise(path: Path, speech: Samples) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(5 * _RATE)
    soundfile.write(path, noise, _RATE)


def _empty(path: Path, speech: Samples) -> None:
    path.write_bytes(b"")


def _text(path: Path, speech: Samples) -> None:
    path.write_text("text\n" * 999)


CASES = (
    Case("speech.wav", f"speech, {_SECONDS} s, 16 kHz mono", 0, lambda p, s: _write(s)(p)),
    Case("missing.wav", "no such file", 1, lambda p, s: None),
    Case("folder.wav", "a folder", 1, lambda p, s: p.mkdir()),
    Case("empty.wav", "0 bytes", 1, _empty),
    Case("none.wav", "a header, 0 samples", 1, lambda p, s: _write(s[:0])(p)),
    Case("text.wav", "text renamed .wav", 1, _text),
    Case("cut.wav", "wav, second half missing", 1, _cut_short),
    Case("cut.flac", "flac, second half missing", 1, _cut_short),
    Case("nan.wav", "NaN samples at 3 s", 1, _nan),
    Case("silence.wav", "5 s of zeros", 0, lambda p, s: _write(np.zeros_like(s[: 5 * _RATE]))(p)),
    Case("noise.wav", "5 s of white noise", 0, _noise),
    Case("clipped.wav", "speech, clipped", 0,
         lambda p, s: _write(np.clip(s * 8 / np.abs(s).max(), -1, 1))(p)),
    Case("8k.wav", "speech at 8 kHz", 0, lambda p, s: _write(_resampled(s, 8000), 8000)(p)),
    Case("stereo.wav", "speech at 44.1 kHz, 2 channels", 0,
         lambda p, s: _write(np.stack([_resampled(s, 44100)] * 2, axis=1), 44100)(p)),
    Case("six.wav", "speech, 6 channels", 0, lambda p, s: _write(np.stack([s] * 6, axis=1))(p)),
    Case("speech.mp3", "speech as mp3", 0, lambda p, s: _write(s)(p)),
    Case("short.wav", "0.1 s of speech: less than a chunk", 0,
         lambda p, s: _write(s[_RATE : _RATE + _RATE // 10])(p)),
    Case("one.wav", "one sample", 0, lambda p, s: _write(s[:1])(p)),
    Case("middle.wav", "speech that stops inside a chunk", 0,
         lambda p, s: _write(s[: 5 * _RATE + 777])(p)),
)  # fmt: skip


def speech_of(data_dir: Path) -> Samples:
    """The beginning of the first recording of the first split that is pooled, (n,) at 16 kHz."""
    split = next(split.name for split in DataFolder.read(data_dir).splits if split.pooled)
    audio = open_audio(recording_files(data_dir, split)[0], _RATE)
    samples = torch.from_numpy(np.concatenate(list(audio.blocks(_RATE))))
    return samples[: _SECONDS * _RATE].numpy()
