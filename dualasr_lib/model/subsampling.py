"""Convolutional front end: 100 Hz features (N, T, F) -> 50 Hz frames (N, ceil(T / 2), C), with
declared look-ahead.

Three 3x3 convolutions (the second with stride 2 in time, the second and third with stride 2 in
frequency), a ConvNeXt block and a linear layer, as in Zipformer's public description. There every
convolution is centred, so that a frame hears the future; here the number of future frames that the
first, third and ConvNeXt convolutions hear is a choice, and their sum is `lookahead`. The second
pairs frames 2j and 2j + 1 of one chunk, which costs nothing.

Letters: N batch, T feature frames (100 Hz), F mel bins, E look-ahead frames, C channels.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dualasr_lib.model.activations import SwooshL, SwooshR
from dualasr_lib.model.normalisation import BiasNorm

__all__ = ["ConvSubsampling", "SubsamplingConfig", "SubsamplingState"]


@dataclass(frozen=True, kw_only=True)
class SubsamplingConfig:
    """Sizes and look-ahead of the front end."""

    channels: tuple[int, ...] = (8, 32, 128)
    """Channels after the three convolutions."""
    future: tuple[int, ...] = (0, 0, 0)
    """Frames the first (100 Hz), third (50 Hz) and ConvNeXt (50 Hz) convolution hear of the future.
    """
    dropout: float = 0.1
    """Dropout of the output."""
    feature_mean: float = -6.0
    """Subtracted from every feature: about the mean log-mel energy of speech in [-1, 1] (ours)."""
    feature_std: float = 3.5
    """Divides every feature after that; learning starts faster on inputs around 0 (ours)."""

    def __post_init__(self) -> None:
        if len(self.channels) != 3 or len(self.future) != 3:
            raise ValueError(
                "channels and future must have 3 entries, "
                f"but are {self.channels} and {self.future}"
            )
        if self.feature_std <= 0:
            raise ValueError(f"feature_std must be positive, but is {self.feature_std}")
        if any(not 0 <= f <= most for f, most in zip(self.future, (2, 2, 6))):
            raise ValueError(f"future must lie in (0..2, 0..2, 0..6), but is {self.future}")


class SubsamplingState(NamedTuple):
    """The frames each convolution still needs of the past, (N, channels, frames, frequencies)."""

    first: Tensor
    second: Tensor
    third: Tensor
    convnext: Tensor


class ConvSubsampling(nn.Module):
    """(N, T, F) -> (N, T / 2, C); streamable with `lookahead` feature frames after each chunk."""

    def __init__(self, config: SubsamplingConfig, num_features: int, dim: int) -> None:
        super().__init__()
        a, b, c = config.channels
        self.config, self.num_features = config, num_features
        widths = (num_features, (num_features - 1) // 2, (num_features - 3) // 4)
        self.first = nn.Conv2d(1, a, 3, padding=(0, 1))
        self.second = nn.Conv2d(a, b, 3, stride=2)
        self.third = nn.Conv2d(b, c, 3, stride=(1, 2))
        self.depthwise = nn.Conv2d(c, c, 7, groups=c, padding=(0, 3))
        self.expand = nn.Linear(c, 3 * c)
        self.reduce = nn.Linear(3 * c, c)
        self.activation, self.wide_activation = SwooshR(), SwooshL()
        self.out_projection = nn.Linear(c * widths[2], dim)
        self.norm = BiasNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self._cache_shapes = (
            (1, 2 - config.future[0], num_features),
            (a, 1, widths[0]),
            (b, 2 - config.future[1], widths[1]),
            (c, 6 - config.future[2], widths[2]),
        )

    @property
    def lookahead(self) -> int:
        """Feature frames (10 ms each) that a chunk needs after its own."""
        first, third, convnext = self.config.future
        return first + 2 * (third + convnext)

    def init_state(self, batch: int, device: torch.device) -> SubsamplingState:
        """State of streams that start now: silence of zeros before the first frame."""
        return SubsamplingState(
            *(torch.zeros(batch, *shape, device=device) for shape in self._cache_shapes)
        )

    def step(self, x: Tensor, state: SubsamplingState) -> tuple[Tensor, SubsamplingState]:
        """x (N, T + E, F) with T even and E = `lookahead` -> (N, T / 2, C), next state."""
        frames = x.shape[1] - self.lookahead
        if frames < 2 or frames % 2:
            raise ValueError(
                f"a window must hold an even number of frames plus {self.lookahead}, "
                f"but holds {x.shape[1]}"
            )
        x = (x - self.config.feature_mean) / self.config.feature_std
        y, first = _past(x[:, None], state.first, frames)
        y, second = _past(self.activation(self.first(y)), state.second, frames)
        y, third = _past(self.activation(self.second(y)), state.third, frames // 2)
        y, convnext = _past(self.activation(self.third(y)), state.convnext, frames // 2)
        # (N, c, T/2, f) -> (N, T/2, f, c): the pointwise layers are matrix products
        inner = self.depthwise(y).permute(0, 2, 3, 1)
        inner = self.reduce(self.wide_activation(self.expand(inner)))
        past = self._cache_shapes[3][1]
        same = y[:, :, past : past + frames // 2].permute(0, 2, 3, 1)
        flat = (same + inner).transpose(2, 3).flatten(2)
        out = self.dropout(self.norm(self.out_projection(flat)))
        return out, SubsamplingState(first, second, third, convnext)


def _past(x: Tensor, cache: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """x (N, c, T + e, f) with its cache in front, and the next cache: what lies before frame T."""
    joined = torch.cat([cache, x], dim=2)
    return joined, joined[:, :, frames : frames + cache.shape[2]]
