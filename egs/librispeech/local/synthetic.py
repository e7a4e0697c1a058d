"""Synthetic voices that read the training transcripts of a LibriSpeech tree: a tree to pretrain on.

    apt-get install espeak-ng flite
    python -m egs.librispeech.local.synthetic --corpus-dir LibriSpeech --out DIR

Debian's espeak-ng and flite read its training transcripts in pieces of some ten words. DIR is a
tree of mini LibriSpeech (train-clean-5, dev-clean-2, test-clean), for prepare.sh --parts mini. Its
training part has each word of the transcripts once: with `--vocab-type char` the tokens are those
of the real data, and `train.py --init-from` takes all weights. Only voices that are not in training
read the other parts. The same seed gives the same tree.
"""

import argparse
import ctypes
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dualasr_lib.core.files import output_folder
from dualasr_lib.core.program import run_program

if TYPE_CHECKING:
    import numpy.typing as npt

RATE = 16000
PARTS = ("train-clean-5", "dev-clean-2", "test-clean")
_PIECE = (6, 14)
"""Words of a piece, fewest and most."""
_HELD_OUT = 40
"""Pieces of each part that is not for training."""


class Voice(NamedTuple):
    """Somebody who reads."""

    engine: str
    """espeak or flite."""
    name: str
    speed: float
    """espeak: words a minute; flite: how much longer sounds last."""
    pitch: float
    """espeak: 0 to 99; flite: mean in Hz."""


_ESPEAK = (
    ("en-us", 150, 45), ("en-us+f2", 165, 50), ("en-us+m3", 140, 30), ("en-us+f4", 150, 65),
    ("en-us-nyc+m7", 155, 40), ("gmw/en+f5", 150, 45), ("en-gb-x-rp+m1", 160, 35),
)  # fmt: skip
_FLITE = (
    ("slt", 1.0, 180), ("slt", 1.15, 210), ("slt", 0.95, 150), ("rms", 1.0, 95), ("rms", 1.1, 120),
    ("rms", 0.9, 80), ("awb", 1.0, 125), ("awb", 1.1, 150), ("kal16", 1.1, 105),
)  # fmt: skip
TRAINING = tuple(
    Voice(engine, name, speed, pitch)
    for engine, rows in (("espeak", _ESPEAK), ("flite", _FLITE))
    for name, speed, pitch in rows
)
OTHERS = (
    Voice("espeak", "en-gb-scotland+m4", 145, 45),
    Voice("espeak", "en-us+f1", 155, 55),
    Voice("flite", "kal16", 1.0, 140),
)


class Piece(NamedTuple):
    """What one voice reads at a time."""

    part: str
    voice: int
    """The number of its speaker."""
    reader: Voice
    text: str


def transcripts(folder: Path) -> list[str]:
    """The texts of a part of LibriSpeech, in the order of its files.

    Raises:
        ValueError: it has none.
    """
    files = sorted(folder.rglob("*.trans.txt"))
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    texts = [line.partition(" ")[2] for line in lines]
    if not texts:
        raise ValueError(f"'{folder}' must have transcripts (*.trans.txt), but has none")
    return texts


def pieces(texts: list[str], seed: int) -> Iterator[Piece]:
    """Who reads what: all training pieces, then those of the other parts."""
    chance = random.Random(seed)
    found: list[str] = []
    for text in texts:
        words = text.split()
        while words:
            length = chance.randint(*_PIECE)
            if len(words) - length < _PIECE[0]:
                length = len(words)
            found.append(" ".join(words[:length]))
            words = words[length:]
    for text in found:
        voice = chance.randrange(len(TRAINING))
        yield Piece(PARTS[0], 100 + voice, TRAINING[voice], text)
    for part in PARTS[1:]:
        for text in chance.sample(found, min(_HELD_OUT, len(found))):
            voice = chance.randrange(len(OTHERS))
            yield Piece(part, 200 + voice, OTHERS[voice], text)


class _Wave(ctypes.Structure):
    """flite's cst_wave."""

    _fields_ = (
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    )


class _FliteVoice(ctypes.Structure):
    """The beginning of flite's cst_voice."""

    _fields_ = (("name", ctypes.c_char_p), ("features", ctypes.c_void_p))


_ESPEAK_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)
_ESPEAK_SYNCHRONOUS, _ESPEAK_RATE, _ESPEAK_PITCH = 2, 1, 3  # of speak_lib.h


def _library(name: str, package: str) -> Any:
    try:
        return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        raise ValueError(f"{name} must be there: apt-get install {package}") from None


@cache
def _flite(name: str) -> "tuple[Any, Any]":
    """flite, and its voice called `name`."""
    flite = _library("libflite.so.1", "flite")
    flite.flite_init()
    for language in ("libflite_usenglish.so.1", "libflite_cmulex.so.1"):
        _library(language, "flite")
    register = getattr(_library(f"libflite_cmu_us_{name}.so.1", "flite"), f"register_cmu_us_{name}")
    register.restype = ctypes.POINTER(_FliteVoice)
    flite.flite_text_to_wave.restype = ctypes.POINTER(_Wave)
    flite.flite_text_to_wave.argtypes = (ctypes.c_char_p, ctypes.POINTER(_FliteVoice))
    flite.flite_feat_set_float.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_float)
    flite.delete_wave.argtypes = (ctypes.POINTER(_Wave),)
    return flite, register(None)


def _by_flite(voice: Voice, text: str) -> "tuple[npt.NDArray[Any], float]":
    import numpy as np

    flite, loaded = _flite(voice.name)
    features = loaded.contents.features
    flite.flite_feat_set_float(features, b"duration_stretch", voice.speed)
    flite.flite_feat_set_float(features, b"int_f0_target_mean", voice.pitch)
    wave = flite.flite_text_to_wave(text.encode(), loaded)
    found = wave.contents
    samples = np.ctypeslib.as_array(found.samples, (found.num_samples,)).astype(np.float32)
    rate = float(found.sample_rate)
    flite.delete_wave(wave)
    return samples, rate


@cache
def _espeak() -> "tuple[Any, float, list[npt.NDArray[Any]], Callable[..., int]]":
    """espeak-ng, its rate, and where what it says is put; the callback must be kept."""
    import numpy as np

    espeak = _library("libespeak-ng.so.1", "espeak-ng")
    rate = espeak.espeak_Initialize(_ESPEAK_SYNCHRONOUS, 0, None, 0)
    heard: list[npt.NDArray[Any]] = []

    def hear(samples: Any, count: int, _: Any) -> int:
        if samples and count > 0:
            heard.append(np.ctypeslib.as_array(samples, (count,)).astype(np.float32))
        return 0

    callback = _ESPEAK_CALLBACK(hear)
    espeak.espeak_SetSynthCallback(callback)
    return espeak, float(rate), heard, callback


def _by_espeak(voice: Voice, text: str) -> "tuple[npt.NDArray[Any], float]":
    import numpy as np

    espeak, rate, heard, _ = _espeak()
    heard.clear()
    if espeak.espeak_SetVoiceByName(voice.name.encode()) != 0:
        raise ValueError(f"espeak-ng must have a voice '{voice.name}', but has none")
    espeak.espeak_SetParameter(_ESPEAK_RATE, int(voice.speed), 0)
    espeak.espeak_SetParameter(_ESPEAK_PITCH, int(voice.pitch), 0)
    content = text.encode() + b"\0"
    espeak.espeak_Synth(content, len(content), 0, 1, 0, 1, None, None)  # from 0, UTF-8
    return np.concatenate(heard), rate


_ENGINES = {"espeak": _by_espeak, "flite": _by_flite}


def read_aloud(piece: Piece, bandwidth: float) -> "npt.NDArray[Any]":
    """Samples at `RATE`, within [-0.5, 0.5], with nothing above `bandwidth` Hz.

    Raises:
        ValueError: the voice is not there.
    """
    import soxr  # what is heavy, after the options

    samples, rate = _ENGINES[piece.reader.engine](piece.reader, piece.text.lower())
    if 2 * bandwidth < rate:
        samples, rate = soxr.resample(samples, rate, 2 * bandwidth), 2 * bandwidth
    samples = soxr.resample(samples, rate, RATE)
    return samples * (0.5 / max(float(abs(samples).max()), 1.0))


def make_tree(planned: list[Piece], root: Path, bandwidth: float) -> None:
    """Writes root/LibriSpeech/<part>/<speaker>/<chapter>/, anew."""
    import soundfile

    shutil.rmtree(root / "LibriSpeech", ignore_errors=True)
    counts: dict[Path, int] = {}
    for done, piece in enumerate(planned):
        chapter = root / "LibriSpeech" / piece.part / str(piece.voice) / "1"
        chapter.mkdir(parents=True, exist_ok=True)
        number = counts[chapter] = counts.get(chapter, -1) + 1
        name = f"{piece.voice}-1-{number:04d}"
        samples = read_aloud(piece, bandwidth)
        soundfile.write(chapter / f"{name}.flac", samples, RATE, subtype="PCM_16")
        with (chapter / f"{piece.voice}-1.trans.txt").open("a", encoding="utf-8") as lines:
            lines.write(f"{name} {piece.text}\n")
        if done % 200 == 0:
            print(f"{done} of {len(planned)} pieces", file=sys.stderr, flush=True)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--corpus-dir", type=Path, required=True, help="the folder LibriSpeech/")
    add(
        "--part", default="train-clean-100", help="whose transcripts are read; default: %(default)s"
    )
    add("--out", type=output_folder, required=True, help="LibriSpeech/ is made in it, anew")
    add(
        "--bandwidth",
        type=float,
        default=5700.0,
        help="Hz; default: that of the pack of real speech",
    )
    add("--seed", type=int, default=1)
    arguments = parser.parse_args()
    texts = transcripts(arguments.corpus_dir / arguments.part)
    make_tree(list(pieces(texts, arguments.seed)), arguments.out, arguments.bandwidth)


if __name__ == "__main__":
    run_program(main)
