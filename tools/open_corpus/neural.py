"""Neural voices: Kokoro-82M's five Japanese ones, spoken by onnxruntime; both come out of archives.

The engine is given the same full-context labels as the HTS engine and makes Kokoro's phonemes of
their phones, so that exactly what is written is spoken. It says no durations: where a phone lies is
estimated (shares of the speech between the silences at both ends), so times of words are near, not
exact. Nothing random: the same labels give the same samples on one kind of processor.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from open_corpus.hts import FRAME_SAMPLES, SAMPLE_RATE, Speech
from open_corpus.sources import NEURAL_VOICES, imported_runtime, neural_files
from open_corpus.words import openjtalk

__all__ = ["HELD_OUT", "NeuralEngine", "NeuralVoice", "draw_neural_voice", "phonemes"]

HELD_OUT = "jf_tebukuro"
"""Heard in evaluation only."""
_MEN = ("jm_kumo",)
_RATE = 24000
_LOUD = 0.02
"""Of the peak: what is quieter at both ends is silence."""
_MARGIN = 0.06
"""Seconds of silence kept at both ends."""
_MOST = 500
"""Symbols that the model takes at once."""

_PHONE = re.compile(r"-([A-Za-z]+)\+")
_ACCENT_PHRASE = re.compile(r"/F:(.*?)/H:")
_CONSONANTS = {
    "b": "b", "by": "bʲ", "ch": "ʨ", "cl": "ʔ", "d": "d", "dy": "dʲ", "f": "ɸ", "fy": "ɸʲ",
    "g": "ɡ", "gw": "ɡᵝ", "gy": "ɡʲ", "h": "h", "hy": "ç", "j": "ʥ", "k": "k", "kw": "kᵝ",
    "ky": "kʲ", "m": "m", "my": "mʲ", "n": "n", "ny": "ɲ", "p": "p", "py": "pʲ", "r": "ɾ",
    "ry": "ɾʲ", "s": "s", "sh": "ɕ", "t": "t", "ts": "ʦ", "ty": "tʲ", "v": "v", "w": "β",
    "y": "j", "z": "ʣ",
}  # fmt: skip
_VOWELS = {"a": "a", "i": "i", "u": "ɯ", "e": "e", "o": "o"}
_BEFORE_I = {"h": "ç", "n": "ɲ", **{x: _CONSONANTS[x] + "ʲ" for x in ("b", "d", "g", "k", "m", "p",
             "r", "t", "v")}}  # fmt: skip
_CENTRAL_U = {"s", "z", "ts", "sh", "ch", "j", *(x for x in _CONSONANTS if x.endswith("y"))} - {"y"}
"""Consonants after which u is written ɨ."""
_NASALS = {"m": "m", "p": "m", "b": "m", "k": "ŋ", "ɡ": "ŋ", "ɲ": "ɲ", "ʨ": "ɲ", "ʥ": "ɲ",
           **dict.fromkeys("ntdɾz", "n")}  # fmt: skip
"""The moraic nasal by the symbol that follows."""


class NeuralVoice(NamedTuple):
    """What makes one speaker of them."""

    mix: tuple[float, ...]
    """Share of each of `NEURAL_VOICES` in the style, sum 1."""
    half_tone: float
    """All frequencies are raised by so many semitones, formants too."""


def draw_neural_voice(key: str, female: bool, held_out: bool) -> NeuralVoice:
    """The voice of `key`: the held-out one alone, or a mixture of the others, mostly of its sex."""
    rng = random.Random(key)
    if held_out:
        mix = [float(name == HELD_OUT) for name in NEURAL_VOICES]
    else:
        mix = [rng.expovariate(1.0) * _share(name, female) for name in NEURAL_VOICES]
    return NeuralVoice(tuple(x / sum(mix) for x in mix), rng.gauss(0.0, 0.7))


def _share(name: str, female: bool) -> float:
    if name == HELD_OUT:
        return 0.0
    return 1.0 if (name in _MEN) != female else 0.15


def phonemes(labels: Sequence[str]) -> list[str]:
    """Kokoro's symbols of each label, "" for silence at the ends; a phrase begins with a space."""
    phones = ["sil", *map(_phone, labels), "sil"]
    phrases = [_phrase(label) for label in labels]
    found = []
    for place, phone in enumerate(phones[1:-1]):
        begins = place > 0 and phrases[place] != phrases[place - 1]
        # a vowel is long within a phrase only: the second o of と思う is one of its own
        symbols = _symbols("sil" if begins else phones[place], phone, phones[place + 2])
        is_word = begins and phones[place] not in ("sil", "pau") and phone not in ("sil", "pau")
        found.append(f" {symbols}" if is_word else symbols)
    return found


def _phrase(label: str) -> str:
    """Its accent phrase."""
    found = _ACCENT_PHRASE.search(label)
    return found[1] if found else ""


def _phone(label: str) -> str:
    """Its phone; devoiced vowels are lower case, too."""
    found = _PHONE.search(label)
    if found is None:
        raise RuntimeError(f"a label must name its phone between - and +, but is {label!r}")
    return found[1].lower() if found[1] in "AIUEO" else found[1]


def _symbols(before: str, phone: str, after: str) -> str:
    if phone in _VOWELS:
        if before == phone:
            return "ː"
        return "ɨ" if phone == "u" and before in _CENTRAL_U else _VOWELS[phone]
    if phone == "N":
        following = _symbols("N", after, "") if after in _CONSONANTS else ""
        return _NASALS.get(following[:1], "ɴ")
    if phone in ("sil", "pau"):
        return "," if phone == "pau" else ""
    if phone == "z" and after == "u":
        return "z"
    return _BEFORE_I[phone] if after == "i" and phone in _BEFORE_I else _CONSONANTS[phone]


class NeuralEngine:
    """Speaks labels with one of the voices or a mixture; as `hts.Engine`, but with estimated times.

    Raises RuntimeError when an archive cannot be had.
    """

    def __init__(self, cache: Path) -> None:
        openjtalk()  # before onnxruntime, with which it would read some words in another way
        files = neural_files(cache)
        runtime: Any = imported_runtime(cache)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = runtime.InferenceSession(
            str(files.model), options, providers=["CPUExecutionProvider"]
        )
        self._ids: dict[str, int] = json.loads(files.vocabulary.read_text("utf-8"))["vocab"]
        with np.load(files.voices) as voices:
            self._styles = np.stack([voices[name] for name in NEURAL_VOICES]).astype(np.float32)
        self._voice = NeuralVoice((1.0, *[0.0] * (len(NEURAL_VOICES) - 1)), 0.0)

    def voice(self, voice: NeuralVoice) -> None:
        """Speak as `voice` from now on."""
        self._voice = voice

    def say(self, labels: Sequence[str], stretch: Sequence[float]) -> Speech:
        """Speak `labels` at the mean of `stretch`, which is relative to the voices' own rate."""
        symbols = phonemes(labels)
        ids = [self._ids[symbol] for symbol in "".join(symbols) + "."]
        if len(ids) > _MOST:
            raise RuntimeError(f"{len(ids)} symbols are too many for one utterance: {symbols}")
        higher = 2 ** (self._voice.half_tone / 12)
        # tensordot would leave the order of its sums to the processor's library
        style = sum(share * style[len(ids) - 1] for share, style in zip(self._voice.mix,
                    self._styles))  # fmt: skip
        (samples,) = self._session.run(
            None,
            {
                "tokens": np.array([[0, *ids, 0]], np.int64),
                "style": np.asarray(style, np.float32).reshape(1, -1),
                "speed": np.array([1 / (higher * float(np.mean(stretch)))], np.float32),
            },
        )
        return _with_times(_resampled(_trimmed(samples.ravel()), higher), symbols)


def _trimmed(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Without the silence at the ends, but for a margin that is made silent."""
    loud = np.flatnonzero(np.abs(samples) > _LOUD * np.abs(samples).max(initial=0.0))
    if not len(loud):
        raise RuntimeError("a neural voice said nothing")
    margin = round(_MARGIN * _RATE)
    inside = samples[loud[0] : loud[-1] + 1]
    return np.pad(inside, margin).astype(np.float32)


def _resampled(samples: npt.NDArray[np.float32], higher: float) -> npt.NDArray[np.float32]:
    """At `SAMPLE_RATE`, all frequencies times `higher`, a whole number of frames."""
    from scipy.signal import resample_poly  # a second to import, and only workers need it

    down = round(100 * higher)
    raised = resample_poly(samples, 100 * SAMPLE_RATE // _RATE, down)
    return np.pad(raised, (0, -len(raised) % FRAME_SAMPLES)).astype(np.float32)


def _with_times(samples: npt.NDArray[np.float32], symbols: Sequence[str]) -> Speech:
    """Frames of each label: the margins are the silences, the rest is shared out, a vowel and what
    stands alone counting one, a consonant half.
    """
    total = len(samples) // FRAME_SAMPLES
    margin = round(_MARGIN * SAMPLE_RATE / FRAME_SAMPLES)
    shares = [0.5 if x.strip()[:1] in set("".join(_CONSONANTS.values())) - {"ʔ"} else 1.0
              for x in symbols[1:-1]]  # fmt: skip
    edges = np.cumsum([0.0, *shares]) / sum(shares) * (total - 2 * margin)
    inner = np.diff(np.round(edges).astype(np.int64))
    return Speech(samples, np.array([margin, *inner, total - margin - int(inner.sum())]))
