"""Convolutional front end: 100 Hz features (N, T, F) -> 50 Hz frames (N, ceil(T / 2), C), with
declared look-ahead.

Three 3x3 convolutions (the second with stride 2 in time, the second and third with stride 2 in
frequency), a ConvNeXt block and a linear layer, as in Zipformer's public description. There every
convolution hears the future; here the number of future frames that each hears is a choice, and
their sum is `lookahead`.

Letters: N batch, T feature frames (100 Hz), F mel bins, E look-ahead frames, C channels.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualasr_lib.core.rates import FRONT_END_STRIDE
from dualasr_lib.model.zipformer.activations import (
    SWOOSH_L,
    SWOOSH_R,
    compute_dtype,
    dropout_mask,
    swoosh,
)
from dualasr_lib.model.zipformer.attention import scaled_linear
from dualasr_lib.model.zipformer.feedforward import feedforward
from dualasr_lib.model.zipformer.fused import run
from dualasr_lib.model.zipformer.masking import sequence_mask
from dualasr_lib.model.zipformer.normalisation import BiasNorm
from dualasr_lib.model.zipformer.regularise import Balance, Balancer
from dualasr_lib.model.zipformer.training_aids import PUBLISHED_WARM_UP, Aids, FrontAids

__all__ = ["ConvSubsampling", "SubsamplingConfig", "SubsamplingState", "depthwise_conv"]

_FIRST_GRADIENT = 0.2
_BLOCK = 4  # frames of one product for depthwise weights: fewer are slow, more are work in vain


@dataclass(frozen=True, kw_only=True)
class SubsamplingConfig:
    """Sizes and look-ahead of the front end."""

    channels: tuple[int, ...] = (8, 32, 128)
    """Channels after the three convolutions."""
    future: tuple[int, ...] = (0, 0, 0, 0)
    """Frames that the first and second (100 Hz), third and ConvNeXt (50 Hz) convolution hear of the
    future: none, or (2, 1, 2, 3) = 130 ms as published.
    """
    dropout: float = 0.1
    """Dropout of the output, one mask for all frames of an utterance."""
    aids: FrontAids = field(default_factory=FrontAids)
    """How it starts, and what is done to its gradients and outputs in training."""
    feature_mean: float = -6.0
    """Subtracted from every feature: about the mean log-mel energy of speech in [-1, 1] (ours)."""
    feature_std: float = 3.5
    """Divides every feature after that; learning starts faster on inputs around 0 (ours)."""

    def __post_init__(self) -> None:
        if len(self.channels) != 3 or len(self.future) != 4:
            raise ValueError(
                "channels must have 3 entries and future 4, "
                f"but are {self.channels} and {self.future}"
            )
        if min(self.channels) < 1 or not 0.0 <= self.dropout < 1.0:
            raise ValueError(
                "channels must be positive and dropout lie in [0, 1), "
                f"but are {self.channels} and {self.dropout}"
            )
        if self.feature_std <= 0:
            raise ValueError(f"feature_std must be positive, but is {self.feature_std}")
        if any(not 0 <= f <= most for f, most in zip(self.future, (2, 1, 2, 6))):
            raise ValueError(f"future must lie in (0..2, 0..1, 0..2, 0..6), but is {self.future}")


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
        (a, b, c), aids = config.channels, config.aids
        self.config, self.num_features = config, num_features
        widths = (num_features, (num_features - 1) // 2, (num_features - 3) // 4)
        self.first = nn.Conv2d(1, a, 3, padding=(0, 1))
        self.second = nn.Conv2d(a, b, 3, stride=(FRONT_END_STRIDE, 2))
        self.third = nn.Conv2d(b, c, 3, stride=(1, 2))
        self.depthwise = nn.Conv2d(c, c, 7, groups=c, padding=(0, 3))
        self.expand = nn.Linear(c, 3 * c)
        self.reduce = scaled_linear(3 * c, c, 0.01) if aids.identity_start else nn.Linear(3 * c, c)
        self.out_projection = nn.Linear(c * widths[2], dim)
        self.norm = BiasNorm(dim)
        self.aids = _aids(config, dim)
        self.drop_block = Aids(aids.drop_block).rate((0, 0.2), (PUBLISHED_WARM_UP, 0.015))
        self.dropout = Aids(aids.early_dropout).dropout(config.dropout)
        self._cache_shapes = (
            (1, 2 - config.future[0], num_features),
            (a, 1 - config.future[1], widths[0]),
            (b, 2 - config.future[2], widths[1]),
            (c, 6 - config.future[3], widths[2]),
        )

    @property
    def lookahead(self) -> int:
        """Feature frames (10 ms each) that a chunk needs after its own."""
        first, second, third, convnext = self.config.future
        return first + second + FRONT_END_STRIDE * (third + convnext)

    def init_state(self, batch: int, device: torch.device) -> SubsamplingState:
        """State of streams that start now: before the first frame everything is zero, features
        after their normalisation too.
        """
        kind = self.norm.bias.dtype
        return SubsamplingState(
            *(torch.zeros(batch, *shape, device=device, dtype=kind) for shape in self._cache_shapes)
        )

    def step(self, x: Tensor, state: SubsamplingState) -> tuple[Tensor, SubsamplingState]:
        """x (N, T + E, F) with T even and E = `lookahead` -> (N, T / 2, C), next state."""
        frames = x.shape[1] - self.lookahead
        if frames < 1 or frames % FRONT_END_STRIDE:
            raise ValueError(
                f"a window must hold a multiple of {FRONT_END_STRIDE} frames plus "
                f"{self.lookahead}, but holds {x.shape[1]}"
            )
        x = (x - self.config.feature_mean) / self.config.feature_std
        y, first = _past(x[:, None], state.first, frames)
        grad_scale = _FIRST_GRADIENT if self.config.aids.scale_gradient else 1.0
        y, second = _past(self._convolve(y, "first", grad_scale), state.second, frames)
        halved = frames // FRONT_END_STRIDE
        y, third = _past(self._convolve(y, "second"), state.third, halved)
        y, convnext = _past(self._convolve(y, "third"), state.convnext, halved)
        out = self.aids["whiten_output"](self.out_projection(self._block(y, halved)))
        out = self.norm(out)
        if self.training:
            mask = dropout_mask(out, out.shape[2], self.dropout.now())
            out = out if mask is None else out * mask.to(out.dtype)
        return out, SubsamplingState(first, second, third, convnext)

    def _convolve(self, x: Tensor, name: str, grad_scale: float = 1.0) -> Tensor:
        conv = getattr(self, name)
        u = F.conv2d(x, conv.weight, conv.bias - SWOOSH_R.shift, conv.stride, conv.padding)
        return swoosh(u, SWOOSH_R, _drawn(self.aids[name], u.ndim), grad_scale)

    def _block(self, y: Tensor, frames: int) -> Tensor:
        """The ConvNeXt block: (N, c, T/2 + 6, f) -> (N, T/2, f c)."""
        # (N, c, T/2, f) -> (N, T/2, f, c): the pointwise layers are matrix products
        inner = depthwise_conv(y, self.depthwise.weight, self.depthwise.bias)
        inner = inner.permute(0, 2, 3, 1).flatten(1, 2)
        balance = _drawn(self.aids["hidden"], inner.ndim)
        inner = feedforward(inner, self.expand, self.reduce, None, balance)
        past = self._cache_shapes[3][1]
        same = y[:, :, past : past + frames].permute(0, 2, 3, 1)
        inner = inner.reshape(same.shape)
        kept = sequence_mask(inner, self.drop_block.now(), self.training)
        out = same + inner if kept is None else torch.addcmul(same, inner, kept)
        out = self.aids["whiten_block"](self.aids["block"](out))
        return out.flatten(2)


def depthwise_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """conv2d with one filter per channel, padded in frequency only.

    x (N, C, T + K - 1, F), weight (C, 1, K, K), K odd, bias (C,) -> (N, C, T, F). The gradient of
    the weight is computed as matrix products; torch's own takes seven times longer on a CPU.
    """
    return run(_Depthwise, x, weight, bias)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        dtype = compute_dtype(x)
        ctx.types = x.dtype, weight.dtype
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=(0, weight.shape[3] // 2), groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        y = grads[0].to(x.dtype).contiguous()
        to_x, _, _ = torch.ops.aten.convolution_backward(
            y, x, weight, None, [1, 1], [0, weight.shape[3] // 2], [1, 1], False, [0, 0],
            x.shape[1], [True, False, False],
        )  # fmt: skip
        to_weight = _depthwise_weight(x, y, weight.shape[3]).to(ctx.types[1])
        return (
            to_x.to(ctx.types[0]),
            to_weight,
            (y.sum(dim=(0, 2, 3)).to(ctx.types[1]) if ctx.needs_input_grad[2] else None),
        )


def _depthwise_weight(x: Tensor, y: Tensor, kernel: int) -> Tensor:
    """Gradient (C, 1, K, K) from x (N, C, T + K - 1, F) and that of the output, y (N, C, T, F).

    Tap (i, j) is the sum over t and f of x[t + i, f + j - K // 2] y[t, f]. Frames are taken B at a
    time: with the windows of B + K - 1 frames that they see, P = windows^T y holds every product
    of a frame seen (B + K - 1, F) with a frame of the output (B, F), summed over blocks. Tap row i
    is in the B places that lie i frames apart, tap (i, j) in a diagonal of their (F, F).
    """
    batch, channels, frames, bins = y.shape
    x, missing = x.contiguous(), -frames % _BLOCK
    if missing:
        x, y = (F.pad(part, (0, 0, 0, missing)) for part in (x, y))
    blocks, width = y.shape[2] // _BLOCK, _BLOCK + kernel - 1
    strides = (x.stride(0), x.stride(1), _BLOCK * bins, 1)
    windows = x.as_strided((batch, channels, blocks, width * bins), strides, x.storage_offset())
    columns = windows.reshape(batch * channels, blocks, width * bins)
    product = columns.transpose(1, 2) @ y.reshape(batch * channels, blocks, _BLOCK * bins)
    product = product.reshape(batch, channels, width, bins, _BLOCK, bins).sum(dim=0)
    apart = sum(product[:, b : b + kernel, :, b] for b in range(_BLOCK))  # (C, K, F, F)
    assert isinstance(apart, Tensor)
    taps = [apart.diagonal(kernel // 2 - j, 2, 3).sum(dim=2) for j in range(kernel)]
    return torch.stack(taps, dim=2)[:, None]


def _aids(config: SubsamplingConfig, dim: int) -> nn.ModuleDict:
    """Balancers and whitening by the place where they act."""
    wanted, (a, b, c) = config.aids, config.channels
    convolutions, block = Aids(wanted.balance_convolutions), Aids(wanted.balance_block)
    shares, shift = (0.05, 0.95), SWOOSH_R.shift

    def behind(channels: int, loudest: float) -> nn.Module:
        return convolutions.balance(channels, shares, (0.2, loudest), channel_dim=1, origin=shift)

    return nn.ModuleDict({
        "first": behind(a, 1.0),
        "second": behind(b, 4.0),
        "third": behind(c, 4.0),
        "hidden": block.balance(3 * c, (0.3, 1.0), (0.75, 5.0), origin=SWOOSH_L.shift),
        "block": block.balance(c, (0.4, 0.6), (1.0, 6.0)),
        "whiten_block": Aids(wanted.whiten_block).whiten(1, 5.0, growth=1.0),
        "whiten_output": Aids(wanted.whiten_output).whiten(1, 4.0, grad_scale=0.02),
    })  # fmt: skip


def _drawn(balancer: nn.Module, ndim: int) -> Balance | None:
    return balancer.draw(ndim) if isinstance(balancer, Balancer) else None


def _past(x: Tensor, cache: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """x (N, c, T + e, f) with its cache in front, and the next cache: what lies before frame T."""
    joined = torch.cat([cache.to(x.dtype), x], dim=2) if cache.shape[2] else x
    return joined, joined[:, :, frames : frames + cache.shape[2]].to(cache.dtype)
