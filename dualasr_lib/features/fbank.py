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
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from dualasr_lib.features.native import native_computer, set_options
from dualasr_lib.features.options import FbankConfig
from dualasr_lib.features.samples import check_samples

__all__ = ["Fbank", "FbankConfig", "FrameComputer", "Library"]

Library = Literal["kaldifeat", "kaldi_native_fbank"]
"""What can compute the features of windows."""


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
        name="kaldi_native_fbank",
    )


def _kaldifeat_computer(config: FbankConfig) -> Callable[[Tensor], Tensor]:
    import kaldifeat

    options = kaldifeat.FbankOptions()
    set_options(options, config)
    options.frame_opts.frame_shift_ms = config.frame_shift_ms
    options.frame_opts.snip_edges = config.snip_edges
    computer = kaldifeat.Fbank(options)

    def compute(windows: Tensor) -> Tensor:
        features: Tensor = computer.compute(windows)
        return features

    return compute


def _native_computer(config: FbankConfig) -> Callable[[Tensor], Tensor]:
    computer = native_computer(config)

    def compute(windows: Tensor) -> Tensor:
        features = computer(windows.detach().cpu().numpy())
        return torch.from_numpy(features).to(windows.device)

    return compute


_COMPUTERS: dict[str, Callable[[FbankConfig], Callable[[Tensor], Tensor]]] = {
    "kaldifeat": _kaldifeat_computer,
    "kaldi_native_fbank": _native_computer,
}
