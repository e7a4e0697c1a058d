"""Log-mel filterbank features of a whole utterance, computed by kaldifeat or kaldi-native-fbank.

One set of options, `FbankConfig`, serves this module and its streaming twin
`dualasr_lib.features.online`. The defaults are those of lhotse's `Fbank`, so that clients which
compute their own features agree. Left out: storage, augmentation, resampling and reading of audio
(lhotse does them).

kaldifeat has to be compiled for one torch; where it is not, kaldi-native-fbank (wheels for every
Python) computes the same from the same windows, up to the rounding of its FFT. Either is imported
when the first extractor is built, so configuration and window arithmetic work without both.

Shapes: n samples, T frames (100 Hz), W samples of one analysis window, F mel bins (80).
"""

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dualasr_lib.core.rates import FRAME_SHIFT_MS
from dualasr_lib.features.samples import check_samples

__all__ = ["Fbank", "FbankConfig", "FrameComputer", "Library"]

Library = Literal["kaldifeat", "kaldi_native_fbank"]
"""What can compute the features of windows."""


@dataclass(frozen=True, kw_only=True)
class FbankConfig:
    """Options of the filterbank, offline and online alike.

    Not options, because lhotse's defaults fix them: Povey window, pre-emphasis 0.97, DC offset
    removed, FFT length rounded up to a power of two, power spectrum, no energy coefficient.
    """

    sample_rate: int = 16000
    """Samples per second of the audio; nothing is resampled."""
    num_mel_bins: int = 80
    """Triangular filters, the size F of a frame."""
    frame_shift_ms: float = float(FRAME_SHIFT_MS)
    """Distance of neighbouring frames; must be that on which chunks, latencies and models count
    (`core.rates`)."""
    frame_length_ms: float = 25.0
    """Length of one analysis window, a whole number of samples."""
    low_freq: float = 20.0
    """Lower edge of the first filter in Hz."""
    high_freq: float = -400.0
    """Upper edge of the last filter in Hz; zero or less counts down from half the sample rate."""
    dither: float = 0.0
    """Must be 0: features are a function of the audio alone."""
    snip_edges: bool = False
    """Must be False: frames are centred on multiples of the shift and the edges are reflected."""

    def __post_init__(self) -> None:
        for name in ("sample_rate", "num_mel_bins", "frame_shift_ms", "frame_length_ms"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be positive, but is {getattr(self, name)}")
        if self.frame_shift_ms != FRAME_SHIFT_MS:
            raise ValueError(
                f"`frame_shift_ms` must be {FRAME_SHIFT_MS}: chunks, latencies and word times "
                f"count on it (core/rates.py); but is {self.frame_shift_ms}"
            )
        for name in ("frame_shift_ms", "frame_length_ms"):
            samples = getattr(self, name) * self.sample_rate / 1000
            if samples != round(samples) or round(samples) % 2:
                raise ValueError(
                    f"`{name}` must be an even number of samples, but is {samples} at "
                    f"{self.sample_rate} Hz"
                )
        if self.frame_length_ms < 2 * self.frame_shift_ms:
            raise ValueError(
                f"`frame_length_ms` must be at least twice `frame_shift_ms` "
                f"({self.frame_shift_ms}), but is {self.frame_length_ms}"
            )
        if self.dither != 0.0 or self.snip_edges:
            raise ValueError(
                "`dither` must be 0 and `snip_edges` False, but they are "
                f"{self.dither} and {self.snip_edges}"
            )
        nyquist = self.sample_rate / 2
        high = self.high_freq if self.high_freq > 0 else nyquist + self.high_freq
        if not 0 <= self.low_freq < high <= nyquist:
            raise ValueError(
                f"`low_freq` and `high_freq` must hold 0 <= low < high <= {nyquist} Hz, "
                f"but are {self.low_freq} and {self.high_freq} (that is {high})"
            )

    @property
    def shift(self) -> int:
        """Samples from one frame to the next (160)."""
        return round(self.frame_shift_ms * self.sample_rate / 1000)

    @property
    def window(self) -> int:
        """Samples W of one analysis window (400)."""
        return round(self.frame_length_ms * self.sample_rate / 1000)

    @property
    def overhang(self) -> int:
        """Samples by which a window reaches beyond its own shift, on each side (120).

        Frame t is centred: it covers samples [t * shift - overhang, (t + 1) * shift + overhang).
        """
        return (self.window - self.shift) // 2

    @property
    def min_samples(self) -> int:
        """Shortest audio whose edges can be reflected (200 samples, 12.5 ms).

        The last window reaches up to shift / 2 + overhang beyond the last sample, the first one
        overhang before the first.
        """
        return self.shift // 2 + self.overhang

    def num_frames(self, num_samples: int) -> int:
        """Frames T of an utterance of n samples: n / shift, rounded to nearest, half up."""
        return (num_samples + self.shift // 2) // self.shift


class FrameComputer:
    """Analysis windows to log-mel frames, shared by both extractors."""

    def __init__(self, config: FbankConfig, library: Library | None = None) -> None:
        """
        Args:
            library: what computes; default: kaldifeat, where it is not built kaldi-native-fbank.

        Raises:
            ModuleNotFoundError: neither is installed.
        """
        self._compute = _computer(config, library)
        self._window = config.window

    def __call__(self, windows: Tensor) -> Tensor:
        """Log-mel energies (M, F) of M windows (M, W) of samples, on the windows' device."""
        if windows.dim() != 2 or windows.shape[1] != self._window:
            raise ValueError(
                f"`windows` must have shape (M, {self._window}), but has {tuple(windows.shape)}"
            )
        return self._compute(windows.contiguous())


class Fbank:
    """Offline extractor: all frames of one utterance at once."""

    def __init__(self, config: FbankConfig) -> None:
        self.config = config
        self._computer = FrameComputer(config)

    def __call__(self, samples: Tensor) -> Tensor:
        """Features of one utterance.

        Args:
            samples: (n,) float32 in [-1, 1], at `config.sample_rate`.

        Returns:
            (T, F) float32, T = `config.num_frames(n)`.

        Raises:
            ValueError: wrong shape or type, samples far beyond full scale, or fewer of them than
                `config.min_samples`.
        """
        config = self.config
        _check_samples(samples, config)
        #   -overhang          0                        n       T * shift + overhang
        #      | reflected left | samples ...           | reflected right |
        right = config.num_frames(len(samples)) * config.shift + config.overhang - len(samples)
        padded = torch.cat([samples[: config.overhang].flip(0), samples, samples[-right:].flip(0)])
        return self._computer(padded.unfold(0, config.window, config.shift))


def _check_samples(samples: Tensor, config: FbankConfig) -> None:
    """Raises ValueError unless `samples` is one utterance of float32 audio, not too short."""
    check_samples(samples, 1, "(n,)")
    if len(samples) < config.min_samples:
        raise ValueError(
            f"`samples` must hold at least {config.min_samples} samples, but holds {len(samples)}"
        )


def _computer(config: FbankConfig, library: Library | None) -> Callable[[Tensor], Tensor]:
    """Windows (M, W) -> log-mel energies (M, F), by a library, or the one that is there."""
    if library is not None:
        return _COMPUTERS[library](config)
    # The compiled part is asked for: `import kaldifeat` also finds any folder of that name, such as
    # tools/setup/kaldifeat, and calls it an empty package.
    for name, compiled in (("kaldifeat", "_kaldifeat"), ("kaldi_native_fbank",) * 2):
        if importlib.util.find_spec(compiled) is not None:
            return _COMPUTERS[name](config)
    raise ModuleNotFoundError(
        "features need kaldifeat or kaldi-native-fbank, and neither is installed here: run "
        "tools/setup.sh, or `pip install kaldi-native-fbank`",
        name="kaldifeat",
    )


def _kaldifeat_computer(config: FbankConfig) -> Callable[[Tensor], Tensor]:
    import kaldifeat

    options = kaldifeat.FbankOptions()
    _set_options(options, config)
    options.frame_opts.frame_shift_ms = config.frame_shift_ms
    options.frame_opts.snip_edges = config.snip_edges
    computer = kaldifeat.Fbank(options)

    def compute(windows: Tensor) -> Tensor:
        features: Tensor = computer.compute(windows)
        return features

    return compute


def _native_computer(config: FbankConfig) -> Callable[[Tensor], Tensor]:
    import kaldi_native_fbank as native

    options = native.FbankOptions()
    _set_options(options, config)
    # The windows are read one behind the other, as audio whose windows do not overlap.
    options.frame_opts.frame_shift_ms = config.frame_length_ms
    options.frame_opts.snip_edges = True

    def compute(windows: Tensor) -> Tensor:
        if not len(windows):
            return windows.new_zeros(0, config.num_mel_bins)
        finite = windows.isfinite().all(
            dim=1, keepdim=True
        )  # it stops at a NaN; kaldifeat does not
        samples = windows.where(finite, torch.zeros_like(windows))
        computer = native.OnlineFbank(options)
        computer.accept_waveform(config.sample_rate, samples.detach().cpu().flatten().numpy())
        frames = [computer.get_frame(i) for i in range(computer.num_frames_ready)]
        features = torch.from_numpy(np.stack(frames)).to(windows.device)
        return features.masked_fill(~finite, math.nan)

    return compute


def _set_options(options: Any, config: FbankConfig) -> None:
    """What both libraries call by the same names."""
    options.frame_opts.samp_freq = config.sample_rate
    options.frame_opts.frame_length_ms = config.frame_length_ms
    options.frame_opts.dither = config.dither
    options.mel_opts.num_bins = config.num_mel_bins
    options.mel_opts.low_freq = config.low_freq
    options.mel_opts.high_freq = config.high_freq


_COMPUTERS: dict[str, Callable[[FbankConfig], Callable[[Tensor], Tensor]]] = {
    "kaldifeat": _kaldifeat_computer,
    "kaldi_native_fbank": _native_computer,
}
