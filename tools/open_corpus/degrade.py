"""What a room, other talkers and a bad line do to speech. numpy only, mono float32 at 16 kHz.

Every function takes the samples (n,) and a numpy Generator or plain numbers and returns new samples
(n,); the order in `apply` is room, babble, lost packets. Effects that are local in time (dropouts,
reverberation tails) and moderate babble are the ones that give a full-context model something to
gain; SNR of 5 dB or less drowns the difference (measured, see README.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "CLEAN",
    "Condition",
    "Degradation",
    "RATE",
    "Samples",
    "apply",
    "babble",
    "dropouts",
    "room_response",
    "reverberate",
    "speech_rms",
]

RATE = 16000
Range = tuple[float, float]
Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A recipe of damage; `draw` fills in the numbers for one channel of one talk."""

    name: str
    """Written into conditions.json."""
    weight: float = 1.0
    """Relative frequency among the conditions of a split."""
    t60: Range | None = None
    """Reverberation time in seconds, or None for no room."""
    direct_to_reverberant: Range = (2.0, 6.0)
    """Ratio in dB; only with `t60`."""
    babble_snr: Range | None = None
    """Signal to babble in dB over the active speech, or None."""
    dropout_rate: float = 0.0
    """Gaps of 80-250 ms per second."""

    def draw(self, rng: np.random.Generator) -> Degradation:
        """The numbers for one channel; the same calls of `rng` whatever the condition."""
        t60, ratio, snr = rng.random(3)
        return Degradation(
            name=self.name,
            t60_s=_between(self.t60, t60),
            drr_db=_between(self.direct_to_reverberant if self.t60 else None, ratio),
            babble_snr_db=_between(self.babble_snr, snr),
            dropout_rate=self.dropout_rate,
        )


class Degradation(NamedTuple):
    """The damage done to one channel; None means not done."""

    name: str
    t60_s: float | None
    drr_db: float | None
    babble_snr_db: float | None
    dropout_rate: float


CLEAN = Condition(name="clean")


def apply(
    samples: Samples,
    damage: Degradation,
    pool: Sequence[Samples],
    rng: np.random.Generator,
) -> Samples:
    """`samples` with the damage done; `pool` holds clips of other talkers for the babble."""
    if damage.t60_s is not None and damage.drr_db is not None:
        samples = reverberate(samples, room_response(damage.t60_s, damage.drr_db, rng))
    if damage.babble_snr_db is not None:
        noise = babble(len(samples), pool, rng)
        gain = speech_rms(samples) / _rms(noise) * 10 ** (-damage.babble_snr_db / 20)
        samples = (samples + noise * gain).astype(np.float32)
    if damage.dropout_rate > 0:
        samples = dropouts(samples, damage.dropout_rate, rng)
    return samples


def speech_rms(samples: Samples) -> float:
    """Root mean square of the active part: samples above 2 % of the peak."""
    active = samples[np.abs(samples) > 0.02 * np.abs(samples).max(initial=0.0)]
    return _rms(active) if len(active) else 1e-9


def babble(
    num_samples: int, pool: Sequence[Samples], rng: np.random.Generator, talkers: int = 5
) -> Samples:
    """`talkers` talkers at once, each a random string of clips of equal power.

    Raises ValueError for an empty pool.
    """
    if not pool:
        raise ValueError("`pool` must hold at least one clip for babble, but is empty")
    mixed = np.zeros(num_samples, np.float32)
    for _ in range(talkers):
        clips: list[Samples] = []
        while sum(map(len, clips)) < num_samples + RATE:
            clip = pool[rng.integers(len(pool))]
            clips.append(clip / _rms(clip))
        talker = np.concatenate(clips)
        start = rng.integers(len(talker) - num_samples)
        mixed += talker[start : start + num_samples]
    return mixed


def room_response(t60: float, drr_db: float, rng: np.random.Generator) -> Samples:
    """An impulse response: direct path, 8 early reflections, noise that falls 60 dB in `t60`
    seconds.

    The noise model is Polack's (exponentially decaying Gaussian noise); `drr_db` is the energy of
    the direct path over that of all the rest.
    """
    time = np.arange(int(RATE * t60)) / RATE
    response = rng.normal(size=len(time)) * 10 ** (-3 * time / t60)
    response[: int(0.003 * RATE)] = 0.0
    for _ in range(8):
        response[int(rng.uniform(0.002, 0.04) * RATE)] += 3 * rng.normal()
    response *= 10 ** (-drr_db / 20) / np.sqrt((response**2).sum())
    response[0] += 1.0
    return response.astype(np.float32)


def reverberate(samples: Samples, response: Samples) -> Samples:
    """Convolution cut to the length of `samples`, at their power."""
    size = 1 << (len(samples) + len(response) - 2).bit_length()
    spectrum = np.fft.rfft(samples, size) * np.fft.rfft(response, size)
    wet = np.fft.irfft(spectrum, size)[: len(samples)]
    dry_level, wet_level = _rms(samples), _rms(wet.astype(np.float32))
    return np.asarray(wet * (dry_level / wet_level), np.float32)


def dropouts(
    samples: Samples, rate: float, rng: np.random.Generator, seconds: Range = (0.08, 0.25)
) -> Samples:
    """Lost packets: gaps (40 dB down) at a mean of `rate` per second, `seconds` long."""
    damaged = samples.copy()
    time = rng.exponential(1 / rate)
    while time < len(samples) / RATE:
        length = rng.uniform(*seconds)
        damaged[int(time * RATE) : int((time + length) * RATE)] *= 0.01
        time += length + rng.exponential(1 / rate)
    return damaged


def _between(bounds: Range | None, share: float) -> float | None:
    return None if bounds is None else round(bounds[0] + share * (bounds[1] - bounds[0]), 3)


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)) + 1e-9)
