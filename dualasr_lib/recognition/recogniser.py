"""A recogniser that is ready for use, from a bundle or from what training wrote.

    recogniser = Recogniser.load()                 # the package's model; or load("model.dualasr")
    print(recogniser.transcribe("talk.wav").text)               # or samples and their rate
    stream = recogniser.stream(48000); stream.feed(block); stream.finish()   # -> events

Everything is heard as a stream: the streaming branch writes the words while they are said, the full
branch rewrites each sentence at its end. Long recordings take no more memory than short ones.
"""

import logging
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dualasr_lib.decoding.captions import Transcript
from dualasr_lib.decoding.events import Event, Final
from dualasr_lib.decoding.live import Listener, Rules, listen
from dualasr_lib.decoding.samples import as_mono, channels_cancel
from dualasr_lib.metrics.calibration import Calibration
from dualasr_lib.recognition.decode_config import DecodeConfig
from dualasr_lib.recognition.default import default_bundle
from dualasr_lib.runtime.layout import is_runtime_set

if TYPE_CHECKING:
    from dualasr_lib.recognition.decode_setup import OpenData

__all__ = ["AudioStream", "Recogniser"]

_LOG = logging.getLogger(__name__)

_BLOCK_SECONDS = 1.0
_CANCELLED = (
    "the channels cancel each other, hardly anything is left of them together: one is turned over;"
    " give one channel alone"
)


class Recogniser:
    """Turns audio into text; serves one recording after the other, or many streams at once.

    Attributes:
        rules: how it hears, for a `Listener` or `ListenerPool` of one's own.
        weights: which weights it has, and how sentences are rewritten, for the reader.
        calibration: of the confidence of final texts; None: it is a bare posterior.
    """

    def __init__(
        self, rules: Rules, weights: str = "", calibration: Calibration | None = None
    ) -> None:
        self.rules, self.weights, self.calibration = rules, weights, calibration

    @staticmethod
    def load(
        path: str | PathLike[str] | None = None,
        *,
        data_dir: str | PathLike[str] | None = None,
        method: str | None = None,
        two_pass: bool | None = None,
        chunk_ms: int | None = None,
        endpoint: Sequence[str] = (),
        device: str = "auto",
    ) -> "Recogniser":
        """A bundle, EXP with its data folder DATA, or what `dualasr-export --format runtime`
        wrote, which needs no torch.

        Args:
            path: of either; None: the model that comes with the package.
            data_dir: of EXP.
            method: search of the first pass; None: the best path of the lattices, without k2 the
                greedy one.
            two_pass: whether the full branch rewrites each sentence; None: if the model can. It
                weighs scores with the scales that came with the model; without these, or without
                k2, it searches greedily.
            chunk_ms: of the streaming branch; None: the model's.
            endpoint: when a sentence ends, `"pause_seconds=0.6"` and the like.
            device: auto, cpu or cuda.

        Raises:
            ValueError: no such file, none of ours, damaged, of a newer version; an option that
                cannot be; a model that cannot stream.
        """
        path = default_bundle() if path is None else Path(path)
        if is_runtime_set(path):
            _refuse(path, data_dir=data_dir, chunk_ms=chunk_ms)
            from dualasr_lib.runtime.opening import Wanted, open_rules

            wanted = Wanted(two_pass=two_pass, method=method, endpoint=endpoint)
            return Recogniser(*open_rules(path, wanted))
        from dualasr_lib.recognition.loading import load_rules

        return Recogniser(*load_rules(path, data_dir, method, two_pass, chunk_ms, endpoint, device))

    @staticmethod
    def build(
        config: DecodeConfig, endpoint: Sequence[str] = (), open_data: "OpenData | None" = None
    ) -> "Recogniser":
        """Just what a configuration says.

        Args:
            endpoint: when a sentence ends, `key=value`; the model's own are the defaults.
            open_data: for scales that have to be tuned; None: they must be there.

        Raises:
            ValueError: as `DecodeSetup`, or there are no scales.
        """
        from dualasr_lib.recognition.loading import build_rules

        return Recogniser(*build_rules(config, endpoint, open_data))

    @property
    def sample_rate(self) -> int:
        """Hz, of the model; audio of any other rate is converted."""
        return self.rules.model.sample_rate

    def transcribe(self, audio: Any, rate: float | None = None) -> Transcript:
        """All segments of a recording: texts, tokens, times.

        Args:
            audio: a file's path; or samples, (n,) or (channels, n), torch or numpy, floating point
                in [-1, 1] or int16.
            rate: of samples, Hz.

        Raises:
            ValueError: no audio, or none that can be right; the message says where.
        """
        if isinstance(audio, (str, PathLike)):
            if rate is not None:
                raise ValueError("`rate` is for samples: a file says its own")
            return self._transcribe_file(audio)
        if rate is None:
            raise ValueError("samples need their rate: transcribe(samples, 16000)")
        stream, finals = self.stream(rate), list[Final]()
        samples = as_mono(audio, sample_rate=int(rate))
        if channels_cancel(audio):
            _LOG.warning(_CANCELLED)
        size = max(1, int(_BLOCK_SECONDS * rate))
        for start in range(0, len(samples), size):
            finals += _finals(stream.feed(samples[start : start + size]))
        finals += _finals(stream.finish())
        return Transcript("", len(samples) / rate, finals, self.calibration)

    def stream(self, rate: float | None = None) -> "AudioStream":
        """A stream that has heard nothing.

        Args:
            rate: of what it will be fed, Hz; None: `sample_rate`.

        Raises:
            ValueError: a rate that cannot be.
        """
        return AudioStream(self.rules, self.sample_rate if rate is None else rate)

    def _transcribe_file(self, path: str | PathLike[str]) -> Transcript:
        from dualasr_lib.data.audio import open_audio  # soundfile, only where files are read

        audio = open_audio(path, self.sample_rate)
        finals = _finals(listen(audio.blocks(self.rules.model.chunk_samples), self.rules))
        duration = audio.duration or (finals[-1].end_seconds if finals else 0.0)
        return Transcript(str(audio.path), duration, finals, self.calibration)


class AudioStream:
    """Audio of one source, pushed in blocks of any size and of one sample rate.

    Raises:
        ValueError: a rate that cannot be.
    """

    def __init__(self, rules: Rules, rate: float) -> None:
        from dualasr_lib.data.resample import Resampler

        self._resampler = Resampler(rate, rules.model.sample_rate)
        self._listener, self._rate = Listener(rules), int(rate)
        self._num_samples, self._is_over, self._is_warned = 0, False, False

    def feed(self, block: Any) -> tuple[Event, ...]:
        """What a block brings: (n,) or (channels, n) samples, n >= 0, torch or numpy, floating
        point in [-1, 1] or int16.

        Raises:
            ValueError: a block that is none, or samples that cannot be right: the stream is as it
                was; or the stream is over.
        """
        if self._is_over:
            raise ValueError("the stream has been finished: it takes no more audio")
        samples = as_mono(block, self._num_samples / self._rate, self._rate)
        self._num_samples += len(samples)
        if not self._is_warned and channels_cancel(block):
            self._is_warned = True
            _LOG.warning(_CANCELLED)
        return self._listener.feed(self._resampler.push(samples))

    def finish(self) -> tuple[Event, ...]:
        """What the rest of the audio brings."""
        events: tuple[Event, ...] = ()
        if not self._is_over:
            self._is_over = True
            events = self._listener.feed(self._resampler.finish())
        return (*events, *self._listener.finish())


def _finals(events: Iterable[Event]) -> list[Final]:
    return [event for event in events if isinstance(event, Final)]


def _refuse(path: Path, **given: object) -> None:
    """ValueError if an option is given that a set for the runtime has no use for."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"{path} is a set for the runtime, which hears in the chunks it was exported for: "
                f"leave out {name}, or load a bundle"
            )
