"""Speech from full-context labels: a ctypes binding of libHTSEngine 1.10 (Debian `libhtsengine1`).

One `Engine` interpolates several voices of the same structure and, per utterance, changes what
makes a speaker (spectral warp, pitch, variance, mean cepstrum) and the duration of each phone. It
reports the frames that each phone really took. Left out: the engine's own text front end, audio
device and post filter (`beta` triples the cost).

Numbers are those of the two voices used here: 48 kHz, frames of 240 samples (5 ms), 5 states a
phone, streams 0 mel cepstrum, 1 log F0, 2 aperiodicity (low-pass filter).
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["FRAME_SAMPLES", "FRAME_SECONDS", "SAMPLE_RATE", "Engine", "Speech", "Voice"]

SAMPLE_RATE = 48000
FRAME_SAMPLES = 240
FRAME_SECONDS = FRAME_SAMPLES / SAMPLE_RATE
_NUM_STATES = 5
_NUM_STREAMS = 3
_MCEP, _LF0 = 0, 1
_STRUCT_BYTES = 65536
"""More than `HTS_Engine` needs (about 1 KiB); the header is not needed then."""
_TICKS = 1e7
"""HTK label times count 100 ns."""

_SIZE, _REAL, _POINTER = ctypes.c_size_t, ctypes.c_double, ctypes.c_void_p
_STRINGS = ctypes.POINTER(ctypes.c_char_p)
_SIGNATURES: dict[str, tuple[object, ...]] = {
    # name: result, arguments after the engine pointer
    "initialize": (None,),
    "load": (ctypes.c_char, _STRINGS, _SIZE),
    "set_parameter_interpolation_weight": (None, _SIZE, _SIZE, _REAL),
    "set_gv_interpolation_weight": (None, _SIZE, _SIZE, _REAL),
    "set_duration_interpolation_weight": (None, _SIZE, _REAL),
    "set_alpha": (None, _REAL),
    "add_half_tone": (None, _REAL),
    "set_msd_threshold": (None, _SIZE, _REAL),
    "set_gv_weight": (None, _SIZE, _REAL),
    "set_volume": (None, _REAL),
    "set_phoneme_alignment_flag": (None, ctypes.c_char),
    "generate_state_sequence_from_strings": (ctypes.c_char, _STRINGS, _SIZE),
    "generate_parameter_sequence": (ctypes.c_char,),
    "generate_sample_sequence": (ctypes.c_char,),
    "get_total_state": (_SIZE,),
    "get_state_duration": (_SIZE, _SIZE),
    "get_state_mean": (_REAL, _SIZE, _SIZE, _SIZE),
    "set_state_mean": (None, _SIZE, _SIZE, _SIZE, _REAL),
    "save_generated_speech": (None, _POINTER),
    "refresh": (None,),
    "clear": (None,),
}


class Voice(NamedTuple):
    """What makes one virtual speaker; two speakers are the same only if these are equal."""

    weights: tuple[float, ...]
    """Share of each loaded voice, in [0, 1]: extrapolated variances may be negative."""
    alpha: float
    """Frequency warping; 0.55 is neutral, less is a longer vocal tract."""
    half_tone: float
    """Shift of the pitch in semitones."""
    gv_mcep: float
    """Weight of the global variance of the mel cepstrum."""
    gv_lf0: float
    """Weight of the global variance of log F0: liveliness of the intonation."""
    msd_threshold: float
    """Probability above which a frame counts as voiced."""
    mcep_shift: tuple[float, ...]
    """Added to the mean mel cepstrum, coefficient 0 first."""
    volume_db: float = -9.0
    """Gain; the voice Mei clips at 0 dB."""


class Speech(NamedTuple):
    """A synthesised utterance."""

    samples: npt.NDArray[np.float32]
    """(n,) float32 in [-1, 1] at 48 kHz."""
    phone_frames: npt.NDArray[np.int64]
    """(labels,) int64: frames of 5 ms of each label, silences at both ends included."""


class Engine:
    """Several voices loaded together; `voice` chooses the speaker, `say` speaks.

    Raises RuntimeError when the library is missing or a voice cannot be loaded.
    """

    def __init__(self, voice_files: Sequence[Path]) -> None:
        self._library = _library()
        self._functions: dict[str, object] = {}
        self._memory = ctypes.create_string_buffer(_STRUCT_BYTES)
        self._engine = ctypes.cast(self._memory, _POINTER)
        self._num_voices = len(voice_files)
        self._shift: tuple[float, ...] = ()
        self._call("initialize")
        names = [str(path).encode() for path in voice_files]
        self._checked("load", _strings(names), len(names), what=f"cannot load {voice_files}")

    def close(self) -> None:
        """Free the engine's memory."""
        self._call("clear")

    def voice(self, voice: Voice) -> None:
        """Speak as `voice` from now on; nothing of an earlier voice remains."""
        if len(voice.weights) != self._num_voices:
            raise ValueError(
                f"`weights` must have one entry for each of the {self._num_voices} voices, "
                f"but has {len(voice.weights)}"
            )
        if not all(0 <= weight <= 1 for weight in voice.weights):
            raise ValueError(f"`weights` must lie in [0, 1], but are {voice.weights}")
        for index, weight in enumerate(voice.weights):
            self._call("set_duration_interpolation_weight", index, weight)
            for stream in range(_NUM_STREAMS):
                self._call("set_parameter_interpolation_weight", index, stream, weight)
                self._call("set_gv_interpolation_weight", index, stream, weight)
        self._call("set_alpha", voice.alpha)
        self._call("add_half_tone", voice.half_tone)
        self._call("set_msd_threshold", _LF0, voice.msd_threshold)
        self._call("set_gv_weight", _MCEP, voice.gv_mcep)
        self._call("set_gv_weight", _LF0, voice.gv_lf0)
        self._call("set_volume", voice.volume_db)
        self._shift = voice.mcep_shift

    def say(self, labels: Sequence[str], stretch: Sequence[float]) -> Speech:
        """Speak `labels`; phone k lasts `stretch[k]` times its natural duration.

        A phone has 5 frames at least.
        """
        if len(stretch) != len(labels):
            raise ValueError(f"`stretch` must have {len(labels)} entries, but has {len(stretch)}")
        natural = self._plan(labels, timed=False)
        self._call("refresh")
        frames = np.maximum(_NUM_STATES, np.round(natural * np.asarray(stretch)))
        edges = np.concatenate([[0], np.cumsum(frames)]) * (FRAME_SECONDS * _TICKS)
        timed = [f"{int(a)} {int(b)} {x}" for a, b, x in zip(edges[:-1], edges[1:], labels)]
        phone_frames = self._plan(timed, timed=True)
        self._shift_mean()
        self._checked("generate_parameter_sequence", what="no parameters from the labels")
        self._checked("generate_sample_sequence", what="no samples from the parameters")
        samples = self._samples()
        self._call("refresh")
        return Speech(samples, phone_frames)

    def _plan(self, labels: Sequence[str], timed: bool) -> npt.NDArray[np.int64]:
        self._call("set_phoneme_alignment_flag", b"\x01" if timed else b"\x00")
        lines = _strings([label.encode() for label in labels])
        what = f"labels not understood, the first is {labels[0]!r}"
        self._checked("generate_state_sequence_from_strings", lines, len(labels), what=what)
        num_states = self._call("get_total_state")
        durations = [self._call("get_state_duration", state) for state in range(num_states)]
        frames: npt.NDArray[np.int64] = np.array(durations, np.int64).reshape(-1, _NUM_STATES)
        return np.asarray(frames.sum(1), np.int64)

    def _shift_mean(self) -> None:
        get = self._function("get_state_mean")
        put = self._function("set_state_mean")
        engine, shifts = self._engine, [(k, s) for k, s in enumerate(self._shift) if s]
        for state in range(self._call("get_total_state")):
            for k, shift in shifts:
                put(engine, _MCEP, state, k, get(engine, _MCEP, state, k) + shift)

    def _samples(self) -> npt.NDArray[np.float32]:
        """The generated speech, through a stream in memory (sample by sample is far too slow)."""
        libc = _libc()
        data, size = ctypes.c_void_p(), ctypes.c_size_t()
        stream = libc.open_memstream(ctypes.byref(data), ctypes.byref(size))
        if not stream:
            raise RuntimeError("open_memstream failed: out of memory")
        self._call("save_generated_speech", stream)
        libc.fclose(stream)
        pcm = np.frombuffer(ctypes.string_at(data, size.value), np.int16)
        libc.free(data)
        return pcm.astype(np.float32) / 32768

    def _function(self, name: str):  # type: ignore[no-untyped-def]
        """The C function HTS_Engine_`name` with its types declared."""
        if name not in self._functions:
            function = getattr(self._library, f"HTS_Engine_{name}")
            function.restype, *arguments = _SIGNATURES[name]
            function.argtypes = [_POINTER, *arguments]
            self._functions[name] = function
        return self._functions[name]

    def _call(self, name: str, *arguments: object):  # type: ignore[no-untyped-def]
        return self._function(name)(self._engine, *arguments)

    def _checked(self, name: str, *arguments: object, what: str) -> None:
        if self._call(name, *arguments) != b"\x01":
            raise RuntimeError(f"libHTSEngine: {what}")


def _strings(values: Sequence[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * len(values))(*values)


def _library() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libHTSEngine.so.1")
    except OSError as error:
        raise RuntimeError(
            f"libHTSEngine.so.1 is missing ({error}); install it: apt-get install libhtsengine1"
        ) from error


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.open_memstream.restype = _POINTER
    libc.open_memstream.argtypes = [ctypes.POINTER(_POINTER), ctypes.POINTER(_SIZE)]
    libc.fclose.argtypes = [_POINTER]
    libc.free.argtypes = [_POINTER]
    return libc
