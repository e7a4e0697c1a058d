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
    layout,
    swoosh,
)
from dualasr_lib.model.zipformer.attention import scaled_linear
from dualasr_lib.model.zipformer.feedforward import feedforward
from dualasr_lib.model.zipformer.fused import run, tracing
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
        y = x[:, None]
        if state.first.shape[2]:  # an export has no caches that are empty, whatever its batch
            y = torch.cat([state.first.to(x.dtype), y], dim=2)
        y = _channels_last(y)
        grad_scale = _FIRST_GRADIENT if self.config.aids.scale_gradient else 1.0
        halved = frames // FRONT_END_STRIDE
        first = _past(y, state.first, frames)
        y = self._convolve(y, "first", state.second, grad_scale)
        second = _past(y, state.second, frames)
        y = self._convolve(y, "second", state.third)
        third = _past(y, state.third, halved)
        y = self._convolve(y, "third", state.convnext)
        convnext = _past(y, state.convnext, halved)
        y = self._block(y, halved)
        out = self.aids["whiten_output"](self.out_projection(y))
        out = self.norm(out)
        if self.training:
            mask = dropout_mask(out, out.shape[2], self.dropout.now())
            out = out if mask is None else out * mask.to(out.dtype)
        return out, SubsamplingState(first, second, third, convnext)

    def _convolve(self, x: Tensor, name: str, cache: Tensor, grad_scale: float = 1.0) -> Tensor:
        """Convolution and activation of x, behind the cache of what follows."""
        conv = getattr(self, name)
        u = F.conv2d(x, conv.weight, conv.bias - SWOOSH_R.shift, conv.stride, conv.padding)
        known = cache.to(u.dtype) if cache.shape[2] else None
        return swoosh(u, SWOOSH_R, _drawn(self.aids[name], u.ndim), grad_scale, known)

    def _block(self, y: Tensor, frames: int) -> Tensor:
        """The ConvNeXt block: (N, c, T/2 + 6, f) -> (N, T/2, f c)."""
        # (N, c, T/2, f) -> (N, T/2, f, c): the pointwise layers are matrix products
        past = self._cache_shapes[3][1]
        maps = depthwise_conv(y, self.depthwise.weight, self.depthwise.bias, past)
        inner, same = (part.permute(0, 2, 3, 1) for part in maps)
        inner = inner.flatten(1, 2)
        balance = _drawn(self.aids["hidden"], inner.ndim)
        inner = feedforward(inner, self.expand, self.reduce, None, balance)
        inner = inner.reshape(same.shape)
        kept = sequence_mask(inner, self.drop_block.now(), self.training)
        out = same + inner if kept is None else torch.addcmul(same, inner, kept)
        out = self.aids["whiten_block"](self.aids["block"](out))
        return out.flatten(2)


def depthwise_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, past: int
) -> tuple[Tensor, Tensor]:
    """conv2d with one filter per channel, padded in frequency only, and the frames of its input
    that stand where those of its output do, behind `past` others.

    x (N, C, T + K - 1, F), weight (C, 1, K, K), K odd, bias (C,) -> twice (N, C, T, F). The
    gradient of the weight is computed as matrix products; torch's own takes seven times longer on a
    CPU.
    """
    maps: Any = run(_Depthwise, x, weight, bias, past)
    return maps[0], maps[1]


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, past: int) -> Any:
        dtype = compute_dtype(x)
        ctx.types, ctx.past = (x.dtype, weight.dtype), past
        low, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
        ctx.save_for_backward(low, weight)
        y = F.conv2d(low, weight, bias, padding=(0, weight.shape[3] // 2), groups=x.shape[1])
        return y, x[:, :, past : past + y.shape[2]]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        y = grads[0].to(x.dtype).contiguous(memory_format=layout(x))
        to_x, _, _ = torch.ops.aten.convolution_backward(
            y, x, weight, None, [1, 1], [0, weight.shape[3] // 2], [1, 1], False, [0, 0],
            x.shape[1], [True, False, False],
        )  # fmt: skip
        to_weight = _depthwise_weight(x, y, weight.shape[3]).to(ctx.types[1])
        to_x = to_x.to(ctx.types[0])
        to_x[:, :, ctx.past : ctx.past + y.shape[2]] += grads[1]
        to_bias = y.sum(dim=(0, 2, 3)).to(ctx.types[1]) if ctx.needs_input_grad[2] else None
        return to_x, to_weight, to_bias, None


def _depthwise_weight(x: Tensor, y: Tensor, kernel: int) -> Tensor:
    """Gradient (C, 1, K, K) from x (N, C, T + K - 1, F) and that of the output, y (N, C, T, F).

    Tap (i, j) is the sum over t and f of x[t + i, f + j - K // 2] y[t, f]. Frames are taken B at a
    time: with the windows of B + K - 1 frames that they see, P = windows^T y holds every product
    of a frame seen (B + K - 1, F) with a frame of the output (B, F), summed over blocks. Tap row i
    is in the B places that lie i frames apart, tap (i, j) in a diagonal of their (F, F).
    """
    batch, channels, frames, bins = y.shape
    x, y, missing = _channels_first(x), _channels_first(y), -frames % _BLOCK
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


def _channels_first(x: Tensor) -> Tensor:
    """x (N, C, T, F), contiguous: utterance by utterance where channels lie last, as torch copies
    transposed matrices five times faster than it does more dimensions.
    """
    if layout(x) is not torch.channels_last:
        return x.contiguous()
    result = x.new_empty(x.shape)
    for to, own in zip(result.flatten(2), x.flatten(2)):
        to.copy_(own)
    return result


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


def _past(joined: Tensor, cache: Tensor, frames: int) -> Tensor:
    """The next cache: what lies before frame T of a map (N, c, T + e, f) behind its cache."""
    return joined[:, :, frames : frames + cache.shape[2]].to(cache.dtype)


def _channels_last(x: Tensor) -> Tensor:
    """x (N, 1, T, F), on a CPU as the map of which all others take over that channels lie side by
    side in memory: a CPU's convolutions are faster, and pointwise layers need no transposing.
    """
    return x if tracing() or x.is_cuda else x[:, 0, :, :, None].permute(0, 3, 1, 2)
