"""Virtual speakers: HTS parameters drawn from a key, and the rhythm of what they say.

A speaker is a function of (seed, talk id, channel) alone, so speakers are shared by no two talks
and hence by no two splits; `plan.check_speakers` proves it for each corpus.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from open_corpus.hts import Voice
from open_corpus.neural import NeuralVoice, draw_neural_voice

__all__ = ["Speaker", "Variety", "draw_neural", "draw_speaker", "number", "stretches"]

_NUM_SHIFTED = 24
_ACCENT_PHRASE = re.compile(r"/F:(.*?)/H:")


@dataclass(frozen=True, kw_only=True)
class Variety:
    """How much speakers differ from each other, and each from moment to moment.

    The defaults are those with which the streaming/full gaps of README.md were measured.
    """

    rate: float = 1.2
    """Mean speaking rate relative to the voices' own."""
    rate_spread: float = 0.12
    """Its standard deviation over speakers."""
    shift: float = 0.12
    """Standard deviation of the shift of mel-cepstral coefficient 1; k has 1/sqrt(k) of it."""
    alpha: tuple[float, float] = (0.52, 0.585)
    """Range of the frequency warping."""
    half_tone: float = 2.5
    """Standard deviation of the pitch shift in semitones."""
    utterance_jitter: float = 0.08
    """Log standard deviation of the rate, per utterance."""
    phrase_jitter: float = 0.12
    """The same, per accent phrase."""
    phone_jitter: float = 0.08
    """The same, per phone."""


class Speaker(NamedTuple):
    """One virtual speaker."""

    female: bool
    voice: Voice | NeuralVoice
    rate: float


def number(key: str) -> int:
    """A 64-bit number from a text, the same on every machine: seeds and splits come from it."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")


def draw_speaker(key: str, female: bool, variety: Variety) -> Speaker:
    """The speaker of `key`: a point between the two voices, by sex on either side of 0.45.

    The point is never outside: variances are interpolated too, and extrapolated ones are negative
    for some states (a few per cent outside are enough), whose speech bursts or whispers.
    """
    rng = random.Random(key)
    weight = rng.uniform(0.45, 1.0) if female else rng.uniform(0.0, 0.45)
    order = np.arange(1, _NUM_SHIFTED + 1)
    shift = np.random.default_rng(number(key)).normal(0, variety.shift, _NUM_SHIFTED) / order**0.5
    voice = Voice(
        weights=(weight, 1 - weight),
        alpha=rng.uniform(*variety.alpha),
        half_tone=rng.gauss(-4.0 if female else 0.0, variety.half_tone),
        gv_mcep=rng.uniform(0.7, 1.1),
        gv_lf0=rng.uniform(0.6, 1.5),
        msd_threshold=rng.uniform(0.35, 0.65),
        mcep_shift=(0.0, *map(float, shift)),
    )
    rate = rng.gauss(variety.rate, variety.rate_spread)
    return Speaker(female, voice, min(1.5, max(0.85, rate)))


def draw_neural(key: str, female: bool, variety: Variety, held_out: bool) -> Speaker:
    """The speaker of `key` with a neural voice; the held-out one is a woman's."""
    voice = draw_neural_voice(key, female, held_out)
    rate = random.Random(f"{key}:rate").gauss(1.0, variety.rate_spread)
    return Speaker(female or held_out, voice, min(1.25, max(0.85, rate)))


def stretches(
    labels: Sequence[str], rate: float, variety: Variety, rng: random.Random
) -> list[float]:
    """Multipliers of the phone durations, jittered per utterance, accent phrase and phone."""
    base = np.exp(rng.gauss(0, variety.utterance_jitter)) / rate
    result, previous, phrase = [], "", 1.0
    for label in labels:
        found = _ACCENT_PHRASE.search(label)
        key = found[1] if found else ""
        if key != previous:
            phrase, previous = np.exp(rng.gauss(0, variety.phrase_jitter)), key
        result.append(float(base * phrase * np.exp(rng.gauss(0, variety.phone_jitter))))
    return result
