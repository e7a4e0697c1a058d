"""Audio files of any common kind as a stream of blocks: mono float32 at one sample rate.

wav, flac, ogg, mp3 and what else libsndfile reads. Channels are averaged, sample rates converted by
soxr as the file is read, so memory does not grow with its length. Pipes and standard input ("-")
are read as they come (`pipe`). What cannot be right is an error that names the file: no audio, cut
short, damaged, NaN, 16-bit samples in a file of floats. Left out: formats that libsndfile does not
read (m4a, video), microphones, and loudness.

n samples of a block.
"""

import contextlib
import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from dualasr_lib.core.levels import CANCELLED, LOUDEST, QUIET_ROOM
from dualasr_lib.data.pipe import STANDARD_INPUT, ForwardFile, copied, is_pipe, open_pipe
from dualasr_lib.data.resample import Resampler

__all__ = ["AudioFile", "open_audio"]

_LOG = logging.getLogger(__name__)

_READ_SECONDS = 1.0
_PIPE_SECONDS = 0.1  # somebody may be speaking into it
_FULL_SCALE = 0.999
_CLIPPED_SHARE = 0.01
_MP3_SLACK = 2 * 1152  # an MP3 header counts whole frames and the encoder's delay
_UNKNOWN_BYTES = 0x7FFF0000  # programs that write into a pipe promise about 2 or 4 GiB
_UNKNOWN_FRAMES = 1 << 60  # what libsndfile says of a flac file that was written into a pipe
_DECLARED = re.compile(r"^\s*(?:data|SSND|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
"""libsndfile's note on a header that promises another number of bytes than the file has."""


@dataclass(frozen=True, kw_only=True)
class AudioFile:
    """A file that has been looked at; every call of `blocks` reads it anew, or says that it is a
    pipe, which can be read once.
    """

    path: Path
    """For the reader: "standard input" is one."""
    sample_rate: int
    """Hz, of the blocks."""
    file_sample_rate: int
    """Hz, in the file."""
    num_channels: int
    """In the file."""
    num_frames: int | None
    """Samples of a channel, as the file's header says; None: a pipe that does not know."""
    source: "_Source" = field(repr=False, compare=False)
    """Where it is read."""

    @property
    def duration(self) -> float | None:
        """Seconds; None: nobody knows yet."""
        return None if self.num_frames is None else self.num_frames / self.file_sample_rate

    def blocks(self, num_samples: int) -> Iterator[npt.NDArray[np.float32]]:
        """(num_samples,) float32 each, the last block may be shorter.

        Raises:
            ValueError: the file ends too early or is damaged there, or has samples that are NaN,
                infinite or far too loud, and the message says at which second; a pipe that has been
                read.
        """
        if num_samples < 1:
            raise ValueError(
                f"blocks must have at least 1 sample, but `num_samples` is {num_samples}"
            )
        pending: list[Any] = []
        size = 0
        for piece in self._resampled():
            pending.append(piece)
            size += len(piece)
            if size >= num_samples:
                joined = np.concatenate(pending)
                whole = size - size % num_samples
                for start in range(0, whole, num_samples):
                    yield joined[start : start + num_samples].copy()
                pending, size = [joined[whole:]], size - whole
        if size:
            yield np.concatenate(pending)

    def _resampled(self) -> Iterator[Any]:
        """(n,) arrays at `sample_rate`."""
        resampler = Resampler(self.file_sample_rate, self.sample_rate)
        for piece in self._mono():
            yield resampler.push(piece)
        yield resampler.finish()

    def _mono(self) -> Iterator[Any]:
        """(n,) float32 arrays at the file's rate, checked."""
        energy = np.zeros(2)  # of the mean of the channels, and the mean of theirs
        done = clipped = 0
        lowest, highest = math.inf, -math.inf
        with self.source.opened(self.path) as file:
            for piece in self._pieces(file):  # (n, channels)
                self._check(piece, done)
                clipped += int((np.abs(piece) >= _FULL_SCALE).sum())
                done += len(piece)
                mono = piece.mean(axis=1, dtype=np.float32)
                squares = np.square(piece, dtype=np.float64).mean(axis=1)
                lowest, highest = min(lowest, mono.min()), max(highest, mono.max())
                energy += np.square(mono, dtype=np.float64).sum(), squares.sum()
                yield mono
        if energy[0] * self.num_channels < CANCELLED * energy[1]:
            _LOG.warning(
                "%s: its %d channels cancel each other, hardly anything is left of them together:"
                " one is turned over; give one channel alone",
                self.path,
                self.num_channels,
            )
        elif done and highest - lowest < 2 * QUIET_ROOM:
            _LOG.warning(
                "%s: hardly a sound is in it, all samples lie within %.1e of full scale: the "
                "recording is empty, or far too quiet", self.path, highest - lowest
            )  # fmt: skip
        share = clipped / max(1, done * self.num_channels)
        if share > _CLIPPED_SHARE:
            _LOG.warning(
                "%s: %.1f %% of the samples are at full scale: the recording is clipped",
                self.path,
                100 * share,
            )

    def _pieces(self, file: Any) -> Iterator[Any]:
        seconds = _READ_SECONDS if self.source.pipe is None else _PIPE_SECONDS
        length = max(1, int(seconds * self.file_sample_rate))
        done = 0
        while True:
            try:
                piece = file.read(length, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise ValueError(self._damaged(done + length, error.error_string)) from error
            if not len(piece):
                break
            done += len(piece)
            yield piece
        slack = _MP3_SLACK if "MPEG" in file.subtype else 0
        if self.num_frames is not None and done + slack < self.num_frames:
            raise ValueError(self._damaged(done, "it ends there"))

    def _damaged(self, position: int, reason: str) -> str:
        seconds = min(position, self.num_frames or position) / self.file_sample_rate
        promise = "" if self.duration is None else f" {self.duration:.2f} s of"
        return (
            f"{self.path}: must hold{promise} audio as its header says, but cannot be read up to "
            f"{seconds:.2f} s: {reason.strip().rstrip('.') or 'damaged data'}"
        )

    def _check(self, piece: Any, done: int) -> None:
        good = (np.abs(piece) <= LOUDEST).all(axis=1)  # False for NaN
        if not good.all():
            first = int(np.argmin(good))
            worst = float(np.abs(piece[first]).max())
            what = "there is NaN or infinity"
            if np.isfinite(worst):
                what = f"there is {worst:g} (samples of 16 bits are to be divided by 32768)"
            raise ValueError(
                f"{self.path}: samples must be finite numbers in [-1, 1], but {what} at "
                f"{(done + first) / self.file_sample_rate:.3f} s"
            )


class _Straight(soundfile.SoundFile):  # type: ignore[misc]
    """Reads straight on. soundfile else seeks after every read of a file that can seek, and mp3
    decoders lose a few frames' memory at each seek: audible damage at every block border.
    """

    def seekable(self) -> bool:
        """Never."""
        return False


class _Source:
    """Where samples come from: a file, a pipe, or the copy of one."""

    def __init__(self, path: Path) -> None:
        self.pipe: ForwardFile | None = None
        self._file = path
        self._copy: Any = None
        self._header: Any = None
        self._is_read = False
        if not is_pipe(path):
            return
        self.pipe = open_pipe(path)
        if not self.pipe.is_empty and not self.pipe.begins_as_wav():
            self._copy = copied(self.pipe)
            self.pipe, self._file = None, Path(self._copy.name)

    @property
    def size(self) -> int | None:
        """Bytes; None: nobody knows yet."""
        if self.pipe is not None:
            return 0 if self.pipe.is_empty else None
        return self._file.stat().st_size

    def opened(self, path: Path) -> Any:
        """A `soundfile.SoundFile` at the beginning; a pipe has one beginning."""
        if self.pipe is None:
            return _opened(path, self._file)
        if self._is_read:
            raise ValueError(f"{path}: a pipe can be read once only")
        self._is_read = True
        self.pipe.go_on()
        return self._header

    def looked_at(self, path: Path) -> Any:
        """A `soundfile.SoundFile` whose header is to be read."""
        if self.pipe is None:
            return _opened(path, self._file)
        self._header = _opened(path, self.pipe)
        return contextlib.nullcontext(self._header)


def open_audio(path: str | PathLike[str], sample_rate: int = 16000) -> AudioFile:
    """Looks at a file, a pipe or ("-") standard input; its blocks will be mono at `sample_rate`.

    Raises:
        ValueError: no such file, a folder, a device, no audio, no samples, or fewer than its header
            promises.
    """
    path = Path(path)
    name = Path("standard input") if str(path) == STANDARD_INPUT else path
    if name is path and not path.exists():
        raise ValueError(f"{path}: there is no such file")
    if path.is_dir():
        raise ValueError(f"{path}: must be an audio file, but is a folder")
    source = _Source(path)
    if source.size == 0:
        raise ValueError(f"{name}: must be an audio file, but is empty (0 bytes)")
    with source.looked_at(name) as file:
        _check_promise(name, file)
        audio = AudioFile(
            path=name,
            sample_rate=sample_rate,
            file_sample_rate=file.samplerate,
            num_channels=file.channels,
            num_frames=_num_frames(name, file, source),
            source=source,
        )
    if audio.num_frames == 0:
        raise ValueError(f"{name}: must hold audio, but has 0 samples")
    try:
        Resampler(audio.file_sample_rate, sample_rate)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if (audio.file_sample_rate, audio.num_channels) != (sample_rate, 1):
        channels = f"{audio.num_channels} channel{'s' if audio.num_channels > 1 else ''}"
        _LOG.info(
            "%s: %d Hz, %s -> %d Hz, mono", name, audio.file_sample_rate, channels, sample_rate
        )
    return audio


def _opened(name: Path, file: Path | ForwardFile) -> Any:
    """A `soundfile.SoundFile`; `name` is for messages."""
    try:
        return _Straight(file)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: headerless *.raw
        reason = getattr(error, "error_string", str(error)).strip().rstrip(".")
        raise ValueError(
            f"{name}: must be audio that libsndfile reads (wav, flac, ogg, mp3, ...), but is "
            f"not: {reason}"
        ) from error


def _num_frames(name: Path, file: Any, source: _Source) -> int | None:
    if source.pipe is not None and source.pipe.is_endless:
        return None
    return int(file.frames) if file.frames < _UNKNOWN_FRAMES else _counted(name, file)


def _check_promise(path: Path, file: Any) -> None:
    """libsndfile silently takes what is there of a wav file that was cut short."""
    for promised, present in _DECLARED.findall(file.extra_info):
        if int(present) < int(promised) < _UNKNOWN_BYTES:
            raise ValueError(
                f"{path}: must hold the {promised} bytes of audio that its header promises, but "
                f"has {present}: it was cut short"
            )


def _counted(path: Path, file: Any) -> int:
    """Samples of a channel, by reading them all."""
    total = 0
    try:
        while size := len(file.read(file.samplerate, dtype="float32", always_2d=True)):
            total += size
    except soundfile.LibsndfileError as error:
        seconds = total / file.samplerate
        raise ValueError(
            f"{path}: cannot be read beyond {seconds:.2f} s: {error.error_string}"
        ) from error
    return total
