"""What a model hears where a recording is silent: digital silence as a very quiet room.

Samples that are all zero (or constant, or far below one step of 16 bits) have features that no
recording of a room has and no model has learnt; recognisers write words into them. Kaldi adds
random noise to all audio (dither) against that; here nothing is random, and audio that is louder is
heard as it is. Left out: training, which hears its data as they are.

T frames, F mel bins.
"""

import torch
from torch import Tensor

from dualasr_lib.core.levels import QUIET_ROOM
from dualasr_lib.features.fbank import FbankConfig, FrameComputer

__all__ = ["TOLERANCE", "heard_silence", "quiet_frame"]

TOLERANCE = 0.05
"""Natural logarithm; stored features are rounded."""


def quiet_frame(config: FbankConfig) -> Tensor:
    """(F,) log-mel energies of steady white noise of `QUIET_ROOM`.

    A single click in a window has the flat spectrum of white noise.
    """
    window = torch.hann_window(config.window, periodic=False).pow(0.85)  # Povey's
    samples = torch.zeros(1, config.window)
    samples[0, config.window // 2] = QUIET_ROOM * float(window.square().sum().sqrt())
    return FrameComputer(config)(samples)[0]


def heard_silence(features: Tensor, lens: Tensor, quiet: Tensor) -> Tensor:
    """Features (N, T, F), of which frames that are nowhere louder than `quiet` (F,) are `quiet`.

    Args:
        lens: (N,) valid frames; what lies behind them stays.
    """
    valid = torch.arange(features.shape[1], device=features.device) < lens[:, None]
    silent = (features <= quiet + TOLERANCE).all(dim=2) & valid
    return torch.where(silent[:, :, None], quiet, features)
