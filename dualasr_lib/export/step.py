"""One chunk of the streaming encoder, laid out for a runtime that pays for each operation: frames
of all streams are the rows of one matrix, so that every linear layer is a product with its bias;
caches lie as products read them, heads before frames; what depends on weights alone is a constant.
`export.runtime` compares it with the encoder itself.

Letters: N streams, T frames of a chunk, L cached frames, W = L + T, C channels, H heads, D channels
of a head, P of its positional part, K kernel.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualasr_lib.core.rates import FRONT_END_STRIDE
from dualasr_lib.model.encoder import StreamingEncoder
from dualasr_lib.model.zipformer.activations import SWOOSH_L, SWOOSH_R, Swoosh, swoosh_parts
from dualasr_lib.model.zipformer.attention import NonlinearAttention, SelfAttention
from dualasr_lib.model.zipformer.band import MASKED
from dualasr_lib.model.zipformer.convolution import ConvConstants, ConvolutionModule
from dualasr_lib.model.zipformer.feedforward import FeedForward
from dualasr_lib.model.zipformer.layer import LayerConstants, ZipformerLayer
from dualasr_lib.model.zipformer.normalisation import BiasNorm, Bypass
from dualasr_lib.model.zipformer.stacks import Downsample, fit_channels
from dualasr_lib.model.zipformer.streaming import ChunkSpec, unfilled
from dualasr_lib.model.zipformer.subsampling import ConvSubsampling

__all__ = ["EncoderStep", "relaid"]

States = Iterator[Tensor]
_TINY = 1e-10
"""Below the length of every frame."""


def relaid(leaves: Sequence[tuple[str, Tensor]]) -> list[Tensor]:
    """Leaves of an `EncoderState` in the order of axes that graphs have, or back: of caches of
    attention (N, L, H, D) <-> (N, H, L, D).
    """
    return [
        leaf.transpose(1, 2) if name.startswith("stacks.layers") and leaf.ndim == 4 else leaf
        for name, leaf in leaves
    ]


class _Linear(nn.Module):
    """Rows (M, C) -> some of a layer's outputs (M, C')."""

    def __init__(self, layer: nn.Linear, part: slice = slice(None), shift: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach()[part].contiguous())
        self.bias = nn.Parameter(layer.bias.detach()[part] - shift)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def _parts(layer: nn.Linear, count: int) -> nn.ModuleList:
    size = layer.out_features // count
    return nn.ModuleList(_Linear(layer, slice(i * size, i * size + size)) for i in range(count))


def _activated(u: Tensor, kind: Swoosh) -> Tensor:
    return swoosh_parts(u, kind)[1]


class _FeedForward(nn.Module):
    def __init__(self, first: nn.Linear, second: nn.Linear) -> None:
        super().__init__()
        self.first, self.second = _Linear(first, shift=SWOOSH_L.shift), _Linear(second)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.second(_activated(self.first(x), SWOOSH_L))
        return found


class _Cached(nn.Module):
    """Values of frames (N T, H D) behind their cache (N, H, L, D): both, and the next cache."""

    def __init__(self, heads: int, frames: int) -> None:
        super().__init__()
        self.heads, self.frames = heads, frames

    def forward(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        joined = torch.cat([cache, _by_head(x, self.heads, self.frames)], dim=2)
        return joined, joined[:, :, self.frames :]


def _by_head(x: Tensor, heads: int, frames: int) -> Tensor:
    """(N T, H D) -> (N, H, T, D)."""
    size = x.shape[1] // heads
    if heads == 1:
        return x.reshape(-1, 1, frames, size)
    return x.reshape(-1, frames, heads, size).transpose(1, 2)


class _Weights(nn.Module):
    """Rows (N T, C), cached keys, mask (N, 1, 1, W) -> weights (N, H, T, W), next cache."""

    def __init__(self, layer: ZipformerLayer, table: Tensor, frames: int) -> None:
        super().__init__()
        own = layer.weights
        self.heads, self.frames = own.config.heads, frames
        q, p = own.query, own.position
        self.into, self.sizes = _Linear(own.in_projection), (q, q, p)
        self.cached = _Cached(self.heads, frames)
        # (H, R, P), one row per distance -> (H, T, P, W), what each frame of a chunk reads
        width = table.shape[1] - frames + 1
        rows = [table[:, frames - 1 - t : frames - 1 - t + width] for t in range(frames)]
        self.register_buffer("table", torch.stack(rows, dim=1).transpose(2, 3).contiguous())

    def forward(self, x: Tensor, cache: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(self.table, Tensor)
        query, key, position = self.into(x).split(self.sizes, dim=1)
        keys, cache = self.cached(key, cache)
        size = position.shape[1] // self.heads
        position = position.reshape(-1, self.frames, self.heads, size).permute(2, 1, 0, 3)
        by_distance = (position @ self.table).permute(2, 0, 1, 3)  # (H, T, N, W) -> (N, H, T, W)
        scores = _by_head(query, self.heads, self.frames) @ keys.transpose(2, 3)
        return (scores + by_distance + mask).softmax(dim=3), cache


class _Attention(nn.Module):
    def __init__(self, own: SelfAttention, heads: int, frames: int) -> None:
        super().__init__()
        self.value, self.out = _Linear(own.in_projection), _Linear(own.out_projection)
        self.cached = _Cached(heads, frames)

    def forward(self, x: Tensor, weights: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        values, cache = self.cached(self.value(x), cache)
        mixed = (weights @ values).transpose(1, 2)
        return self.out(mixed.reshape(-1, self.value.weight.shape[0])), cache


class _Nonlinear(nn.Module):
    def __init__(self, own: NonlinearAttention, frames: int) -> None:
        super().__init__()
        self.into = _Linear(own.in_projection)
        self.out, self.cached, self.inner = (
            _Linear(own.out_projection),
            _Cached(1, frames),
            own.inner,
        )

    def forward(self, x: Tensor, weights: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        scale, value, gate = self.into(x).chunk(3, dim=1)
        values, cache = self.cached(value * scale.tanh(), cache)
        mixed = (weights[:, :1] @ values).reshape(-1, self.inner)
        return self.out(mixed * gate), cache


class _Convolution(nn.Module):
    def __init__(self, own: ConvolutionModule, constants: ConvConstants) -> None:
        super().__init__()
        self.into = _Linear(own.in_projection)
        self.out, self.history = _Linear(own.out_projection), own.depthwise.history
        self.register_buffer("matrix", constants.matrix.transpose(1, 2).contiguous())  # (C, W, T)
        self.register_buffer("bias", constants.bias.detach().clone())  # (T or 1, C)

    def forward(self, x: Tensor, cache: Tensor | None) -> tuple[Tensor, Tensor | None]:
        assert isinstance(self.matrix, Tensor) and isinstance(self.bias, Tensor)
        channels, width, frames = self.matrix.shape
        value, gate = self.into(x).chunk(2, dim=1)
        joined = (value * gate.sigmoid()).reshape(-1, frames, channels)
        if cache is not None:
            joined = torch.cat([cache, joined], dim=1)
            cache = joined[:, width - self.history :]
        y = (joined.permute(2, 0, 1) @ self.matrix).permute(1, 2, 0) + self.bias
        return self.out(_activated(y.reshape(-1, channels), SWOOSH_R)), cache


class _Norm(nn.Module):
    def __init__(self, own: BiasNorm) -> None:
        super().__init__()
        self.bias = nn.Parameter(own.bias.detach().clone())
        self.scale = float(own.log_scale.detach().exp()) * own.bias.numel() ** 0.5

    def forward(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x - self.bias, dim=1, keepdim=True)
        return x * (self.scale / length.clamp(min=_TINY))


def _mixed(before: Tensor, after: Tensor, own: Bypass) -> Tensor:
    return before + (after - before) * own.scale


class _Layer(nn.Module):
    def __init__(self, own: ZipformerLayer, constants: LayerConstants, frames: int) -> None:
        super().__init__()
        heads = own.config.attention.heads
        self.own = own
        self.weights = _Weights(own, constants.table, frames)
        self.feed = nn.ModuleList(
            _FeedForward(each.in_projection, each.out_projection)
            for each in (own.feedforward1, own.feedforward2, own.feedforward3)
            if isinstance(each, FeedForward)
        )
        self.nonlinear = _Nonlinear(own.nonlinear, frames)
        self.attention1 = _Attention(own.attention1, heads, frames)
        self.attention2 = _Attention(own.attention2, heads, frames)
        self.conv1 = _Convolution(own.conv1, constants.conv1)
        self.conv2 = _Convolution(own.conv2, constants.conv2)
        self.norm = _Norm(own.norm)

    def forward(self, x: Tensor, states: States, mask: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The next six states of `states`, in the order of `LayerState`, are this layer's."""
        start, remembers = x, self.conv1.history > 0
        key, nonlinear, value1, value2 = (next(states) for _ in range(4))
        conv1, conv2 = (next(states) if remembers else None for _ in range(2))
        weights, key = self.weights(x, key, mask)
        x = x + self.feed[0](x)
        y, nonlinear = self.nonlinear(x, weights, nonlinear)
        x = x + y
        y, value1 = self.attention1(x, weights, value1)
        x = x + y
        y, conv1 = self.conv1(x, conv1)
        x = x + y
        x = _mixed(start, x + self.feed[1](x), self.own.bypass_mid)
        y, value2 = self.attention2(x, weights, value2)
        x = x + y
        y, conv2 = self.conv2(x, conv2)
        x = x + y
        x = self.norm(x + self.feed[2](x))
        after = [key, nonlinear, value1, value2, conv1, conv2]
        return _mixed(start, x, self.own.bypass), [each for each in after if each is not None]


class _Front(nn.Module):
    """Features (N, T + E, F) and what the convolutions remember -> rows (N T / 2, C)."""

    def __init__(self, own: ConvSubsampling, frames: int) -> None:
        super().__init__()
        self.own, self.frames = own, frames
        self.block = _FeedForward(own.expand, own.reduce)
        self.out, self.norm = _Linear(own.out_projection), _Norm(own.norm)
        for name in ("first", "second", "third"):
            self.register_buffer(name, getattr(own, name).bias.detach() - SWOOSH_R.shift)

    def forward(self, x: Tensor, states: States) -> tuple[Tensor, list[Tensor]]:
        own, after = self.own, list[Tensor]()
        frames, like = self.frames, own.init_state(1, x.device)
        y = ((x - own.config.feature_mean) * (1.0 / own.config.feature_std))[:, None]
        for name, empty in zip(("first", "second", "third"), like):
            y = self._joined(y, frames, empty, states, after)
            conv: nn.Conv2d = getattr(own, name)
            y = F.conv2d(y, conv.weight, getattr(self, name), conv.stride, conv.padding)
            y = _activated(y, SWOOSH_R)
            frames = frames // FRONT_END_STRIDE if name == "second" else frames
        y = self._joined(y, frames, like.convnext, states, after)
        deep, past = own.depthwise, like.convnext.shape[2]
        inner = F.conv2d(y, deep.weight, deep.bias, padding=deep.padding, groups=deep.groups)
        channels, bins = inner.shape[1], inner.shape[3]
        rows = inner.permute(0, 2, 3, 1).reshape(-1, channels)
        same = y[:, :, past : past + frames].permute(0, 2, 3, 1).reshape(-1, channels)
        found = self.out((same + self.block(rows)).reshape(-1, bins * channels))
        return self.norm(found), after

    def _joined(
        self, x: Tensor, frames: int, empty: Tensor, states: States, after: list[Tensor]
    ) -> Tensor:
        size = empty.shape[2]
        if not empty.numel():
            return x
        joined = torch.cat([next(states), x], dim=2)
        after.append(joined[:, :, frames : frames + size])
        return joined


class EncoderStep(nn.Module):
    """A chunk x (N, T, F) and the states of streams -> encoder frames (N, S, C), next states.

    Args:
        chunk: its length and left context.

    Raises:
        ValueError: a chunk that does not suit the encoder.
    """

    def __init__(self, encoder: StreamingEncoder, chunk: ChunkSpec) -> None:
        super().__init__()
        with torch.no_grad():
            prepared = encoder.prepare(chunk, torch.device("cpu"))
        self.encoder, self.frames = encoder, chunk.frames
        self.front = _Front(encoder.subsampling, FRONT_END_STRIDE * chunk.frames)
        self.stacks, self.caches = nn.ModuleList(), list[tuple[int, int]]()
        for config, stack, known in zip(
            encoder.stacks.configs, encoder.stacks.stacks, prepared.constants
        ):
            local = chunk.downsampled(config.downsampling)
            self.caches.append((local.left or 0, config.downsampling))
            layers = [each for each in stack.layers if isinstance(each, ZipformerLayer)]
            self.stacks.append(nn.ModuleList(
                _Layer(layer, constants, local.frames) for layer, constants in zip(layers, known)
            ))  # fmt: skip

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, list[Tensor]]:
        *caches, processed = states
        rest = iter(caches)
        x, after = self.front(x, rest)
        masks: dict[tuple[int, int], Tensor] = {}
        outputs = []
        for own, layers, cache in zip(self.encoder.stacks.stacks, self.stacks, self.caches):
            if cache not in masks:
                masks[cache] = self._mask(processed, *cache)
            x = fit_channels(x[None], own.config.layer.dim)[0]
            inside = _averaged(x, own.downsample)
            for layer in layers:
                inside, more = layer(inside, rest, masks[cache])
                after += more
            x = inside if own.downsample.factor == 1 else _repeated(x, inside, own)
            outputs.append(x)
        h = _averaged(_latest(outputs), self.encoder.downsample)
        frames = self.frames // self.encoder.downsample.factor
        return h.reshape(-1, frames, h.shape[1]), [*after, processed + self.frames]

    def _mask(self, processed: Tensor, cached: int, factor: int) -> Tensor:
        empty = unfilled(processed, cached, factor).float() * MASKED
        return F.pad(empty, (0, self.frames // factor))[:, None, None]


def _averaged(x: Tensor, own: Downsample) -> Tensor:
    """Rows (N T, C) -> (N T / factor, C)."""
    if own.factor == 1:
        return x
    weights = own.weights.detach().softmax(0)[:, None]
    return (x.reshape(-1, own.factor, x.shape[1]) * weights).sum(dim=1)


def _repeated(x: Tensor, inside: Tensor, own: nn.Module) -> Tensor:
    assert isinstance(own.downsample, Downsample) and isinstance(own.bypass, Bypass)
    wide = x.reshape(-1, own.downsample.factor, x.shape[1])
    return _mixed(wide, inside[:, None], own.bypass).reshape(x.shape)


def _latest(outputs: Sequence[Tensor]) -> Tensor:
    """Each channel from the latest stack that has it, of rows."""
    pieces = [outputs[-1]]
    for output in reversed(outputs[:-1]):
        width = sum(piece.shape[1] for piece in pieces)
        if output.shape[1] > width:
            pieces.append(output[:, width:])
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)
