"""Log-mel energies of analysis windows by kaldi-native-fbank: numpy in, numpy out, no torch.

Shapes: M windows, W samples of one, F mel bins.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dualasr_lib.features.options import FbankConfig

__all__ = ["Heard", "NativeOnline", "native_computer", "set_options"]

Computer = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


def native_computer(config: FbankConfig) -> Computer:
    """What makes (M, F) log-mel energies of (M, W) samples; those of a window with NaN are NaN.

    Raises:
        ModuleNotFoundError: kaldi-native-fbank is not installed.
    """
    import kaldi_native_fbank as native

    options = native.FbankOptions()
    set_options(options, config)
    # The windows are read one behind the other, as audio whose windows do not overlap.
    options.frame_opts.frame_shift_ms = config.frame_length_ms
    options.frame_opts.snip_edges = True

    def compute(windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if not len(windows):
            return np.zeros((0, config.num_mel_bins), np.float32)
        # it stops at a NaN; kaldifeat does not
        finite = np.isfinite(windows).all(axis=1, keepdims=True)
        computer = native.OnlineFbank(options)
        samples = np.where(finite, windows, np.float32(0)).reshape(-1)
        computer.accept_waveform(config.sample_rate, samples)
        frames = [computer.get_frame(i) for i in range(computer.num_frames_ready)]
        return np.where(finite, np.stack(frames), np.float32(np.nan))

    return compute


def set_options(options: Any, config: FbankConfig) -> None:
    """What kaldifeat and kaldi-native-fbank call by the same names."""
    options.frame_opts.samp_freq = config.sample_rate
    options.frame_opts.frame_length_ms = config.frame_length_ms
    options.frame_opts.dither = config.dither
    options.mel_opts.num_bins = config.num_mel_bins
    options.mel_opts.low_freq = config.low_freq
    options.mel_opts.high_freq = config.high_freq


class Heard(NamedTuple):
    """What streams remember between two windows; see `features.online.FbankState`."""

    left: npt.NDArray[np.float32]
    """(N, overhang)."""
    age: npt.NDArray[np.int64]
    """(N,)."""


class NativeOnline:
    """`features.online.OnlineFbank` without torch: the same windows, the same features."""

    def __init__(self, config: FbankConfig) -> None:
        self.config, self._compute = config, native_computer(config)

    def init_state(self, batch: int) -> Heard:
        """State of N streams that have not begun."""
        return Heard(np.zeros((batch, self.config.overhang), np.float32), np.zeros(batch, np.int64))

    def step(
        self, samples: npt.NDArray[np.float32], state: Heard, new: int
    ) -> tuple[npt.NDArray[np.float32], Heard]:
        """Features (N, T, F) of samples (N, T * shift + overhang), and the state `new` samples on,
        where the next call begins.
        """
        config = self.config
        begin = samples[:, : config.overhang][:, ::-1]
        left = np.where((state.age == 0)[:, None], begin, state.left)
        whole = np.concatenate([left, samples], axis=1)
        windows = np.lib.stride_tricks.sliding_window_view(whole, config.window, axis=1)
        windows = windows[:, :: config.shift]
        shape = windows.shape
        features = self._compute(windows.reshape(-1, config.window))
        after = whole[:, new : new + config.overhang].copy()
        return features.reshape(*shape[:2], -1), Heard(after, state.age + new // config.shift)
