"""Log-mel filterbank features of running audio: a batch of streams, a window of samples at a time.

Law: the concatenated results of `OnlineFbank.step` equal `dualasr_lib.features.fbank.Fbank` on the
whole audio, both edges included. State is a value; streams of different age share a batch and never
touch each other. Left out: collecting samples until a window is full, which is the caller's.

The window of one step, for a stream that has given A frames so far (shift 160, overhang 120):

    A * 160 - 120        A * 160                      A * 160 + P         A * 160 + P + 120
         |  state.left      |  P new samples               |  look-ahead        |
                            |<----- `samples` of this call ---------------------->|
                                                           |<----- of the next call ...

At the start of a stream `left` is the reflection of the first samples, which `step` takes from the
window itself. At the end there is nothing to look ahead at: the caller appends the reflection of
the last ones (`decoding.stepping.window`).

Shapes: N streams, P new samples of a step (a multiple of the shift), n samples, F mel bins.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from dualasr_lib.features.fbank import FbankConfig, FrameComputer
from dualasr_lib.features.samples import check_samples

__all__ = ["FbankState", "OnlineFbank"]


class FbankState(NamedTuple):
    """What a batch of streams remembers between two steps."""

    left: Tensor
    """(N, overhang) float32: samples before the next frame's own; unused while `age` is 0."""
    age: Tensor
    """(N,) int64: frames given so far."""


class OnlineFbank:
    """Streaming extractor; see the module's docstring for the windows."""

    def __init__(self, config: FbankConfig) -> None:
        self.config = config
        self._computer: FrameComputer | None = None

    @property
    def lookahead_samples(self) -> int:
        """Samples after the new ones that a step reads (120); the next call brings them again."""
        return self.config.overhang

    def init_state(self, batch: int, device: torch.device | str = "cpu") -> FbankState:
        """State of N streams that have not begun."""
        return FbankState(
            left=torch.zeros(batch, self.config.overhang, device=device),
            age=torch.zeros(batch, dtype=torch.int64, device=device),
        )

    def step(self, samples: Tensor, state: FbankState) -> tuple[Tensor, FbankState]:
        """Features of the next P samples of each stream.

        Args:
            samples: (N, P + lookahead_samples) float32 in [-1, 1]; P a positive multiple of the
                shift.
            state: of the same N streams.

        Returns:
            features (N, P / shift, F) float32 and the next state.

        Raises:
            ValueError: wrong shape or type of `samples`, or samples far beyond full scale.
        """
        windows, state = self.windows(samples, state)
        if self._computer is None:
            self._computer = FrameComputer(self.config)
        # (N, M, W) -> (N * M, W) -> (N, M, F)
        features = self._computer(windows.flatten(0, 1))
        return features.reshape(*windows.shape[:2], -1), state

    def windows(self, samples: Tensor, state: FbankState) -> tuple[Tensor, FbankState]:
        """Analysis windows (N, P / shift, W) of a step, and the next state; needs no library."""
        self._check(samples, state)
        config = self.config
        new = samples.shape[1] - config.overhang
        begin = samples[:, : config.overhang].flip(1)
        left = torch.where(state.age.eq(0).unsqueeze(1), begin, state.left)
        joined = torch.cat([left, samples], dim=1)  # (N, overhang + P + overhang)
        next_state = FbankState(
            left=joined[:, new : new + config.overhang].clone(),
            age=state.age + new // config.shift,
        )
        return joined.unfold(1, config.window, config.shift), next_state

    def _check(self, samples: Tensor, state: FbankState) -> None:
        config = self.config
        check_samples(samples, 2, f"(N, P + {config.overhang})")
        new = samples.shape[1] - config.overhang
        if new < config.shift or new % config.shift:
            raise ValueError(
                f"`samples` must hold a positive multiple of {config.shift} new samples and "
                f"{config.overhang} of look-ahead, but holds {samples.shape[1]}"
            )
        if len(samples) != len(state.age):
            raise ValueError(
                f"`samples` must have one row for each of the {len(state.age)} streams of the "
                f"state, but has {len(samples)}"
            )
