"""Doubts about audio, at its own sampling rate, before it is resampled and made into features."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from lhotse import Recording

from dualasr_lib.core.program import told_by
from dualasr_lib.data.sphere import reading
from dualasr_lib.features.fbank import FbankConfig
from dualasr_lib.recipe.process import die_with_parent, worker_pool
from dualasr_lib.recipe.source import Defect
from dualasr_lib.recipe.stage import progress
from dualasr_lib.recipe.text_checks import Utterance

__all__ = ["Sound", "listen", "repeated", "sound_kinds"]

Samples = npt.NDArray[np.float32]
_FULL, _CLIPPED = 0.97, 10
"""A peak that may be clipping, and how many times it is held for three samples."""
_SILENT, _QUIET = -65.0, -50.0
"""dB of full scale."""
_PAUSE, _PAUSES = 45.0, 0.7
_OFFSET = 0.02
_NARROW = 1e-7
"""Share of the energy in the upper half of the band; 16 bits of a quiet voice leave more."""
_FRAME = 512


class Sound(NamedTuple):
    """What was heard of one utterance."""

    id: str
    level: float
    """Root mean square, dB of full scale; -inf for digital silence."""
    fingerprint: str
    """Of the samples."""
    doubts: tuple[Defect, ...]


def listen(
    utterances: Sequence[Utterance], recordings: Mapping[str, dict[str, Any]], jobs: int
) -> list[Sound]:
    """Every utterance's audio, in the order of `utterances`, by `jobs` processes."""
    work = [(utterance, recordings[utterance.recording_id]) for utterance in utterances]
    if jobs == 1:
        return list(progress(map(_hear, work), len(work), "listening"))
    with worker_pool(jobs, die_with_parent) as pool:
        return list(progress(pool.map(_hear, work, chunksize=16), len(work), "listening"))


def _hear(work: tuple[Utterance, dict[str, Any]]) -> Sound:
    utterance, plain = work
    recording = Recording.from_dict(dict(plain))  # it takes its sources out
    doubt = partial(Defect, id=utterance.id)
    found: list[Defect] = []
    rate = recording.sampling_rate
    if rate < FbankConfig().sample_rate:
        found.append(doubt("low-rate", detail=f"{rate} Hz"))
    if recording.num_channels > 1:
        detail = f"{recording.num_channels} channels, {utterance.channel} is used"
        found.append(doubt("several-channels", detail=detail))
    try:
        with reading(recording):
            samples = recording.load_audio(
                channels=utterance.channel, offset=utterance.start, duration=utterance.seconds
            )[0]
    except Exception as error:  # of whatever reads audio
        found.append(doubt("unreadable-audio", detail=told_by(str(error))))
        return Sound(utterance.id, -np.inf, "", tuple(found))
    found += [doubt(kind, detail=detail) for kind, detail in sound_kinds(samples, rate)]
    fingerprint = hashlib.sha256(samples.tobytes()).hexdigest()
    return Sound(utterance.id, _decibels(samples), fingerprint, tuple(found))


def sound_kinds(samples: Samples, rate: int) -> Iterator[tuple[str, str]]:
    """Kinds of doubts, with what was measured, of samples (T,) at full scale 1."""
    if not np.isfinite(samples).all():
        yield "not-finite", f"{int((~np.isfinite(samples)).sum())} samples"
        return
    level, peak = _decibels(samples), float(np.abs(samples).max(initial=0.0))
    if level < _SILENT:
        yield "silent", f"{level:.0f} dB"
        return
    if level < _QUIET:
        yield "quiet", f"{level:.0f} dB"
    at_peak = np.abs(samples) >= 0.999 * peak
    held = int((at_peak[:-2] & at_peak[1:-1] & at_peak[2:]).sum())
    if peak >= _FULL and held >= _CLIPPED:
        yield "clipped", f"held at {peak:.3f} {held} times"
    if abs(mean := float(samples.mean())) > _OFFSET:
        yield "dc-offset", f"mean {mean:.3f}"
    frames = _frames(samples)
    if not len(frames):
        return
    levels = 10 * np.log10((frames**2).mean(axis=1) + 1e-12)
    paused = float((levels < levels.max() - _PAUSE).mean())
    if paused >= _PAUSES:
        yield "mostly-silent", f"{100 * paused:.0f} %"
    upper = _upper_share(frames)
    if rate >= FbankConfig().sample_rate and upper < _NARROW:
        yield "narrow-band", f"{10 * np.log10(upper + 1e-20):.0f} dB above {rate / 4000:g} kHz"


def _decibels(samples: Samples) -> float:
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(np.mean(samples.astype(np.float64) ** 2)))


def _frames(samples: Samples) -> Samples:
    count = len(samples) // _FRAME
    return samples[: count * _FRAME].reshape(count, _FRAME)


def _upper_share(frames: Samples) -> float:
    """Energy above a quarter of the sampling rate, of all energy."""
    window = np.hanning(_FRAME)
    power = (np.abs(np.fft.rfft((frames - frames.mean()) * window)) ** 2).sum(axis=0)
    return float(power[_FRAME // 4 + 2 :].sum() / max(power.sum(), 1e-30))


def repeated(sounds: Iterable[Sound], splits: Mapping[str, str]) -> Iterator[Defect]:
    """Utterances with the samples of an earlier one."""
    first: dict[str, str] = {}
    for sound in sounds:
        if not sound.fingerprint:
            continue
        other = first.setdefault(sound.fingerprint, sound.id)
        if other != sound.id:
            detail = f"{splits[sound.id]}: the audio of {other} ({splits[other]})"
            yield Defect("repeated-audio", sound.id, detail)
