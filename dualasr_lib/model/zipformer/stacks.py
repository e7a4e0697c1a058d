"""Zipformer stacks: layers at several frame rates in a U-Net, run chunk by chunk or over whole
utterances.

A stack of downsampling d averages d frames with learnt weights, runs its layers, repeats each frame
d times and is mixed with its own input. Stacks may have different widths: a stack sees its first C
channels of what came before (zero-padded), and the output takes each channel from the latest stack
that has it.
Source: arXiv 2310.11230, section 3.1.

Letters: N batch, T frames at the input rate, C channels.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualasr_lib.model.zipformer.band import Window
from dualasr_lib.model.zipformer.context import (
    Context,
    chunk_context,
    full_context,
    position_encoding,
    step_context,
)
from dualasr_lib.model.zipformer.fused import tracing
from dualasr_lib.model.zipformer.layer import (
    LayerConfig,
    LayerConstants,
    LayerState,
    ZipformerLayer,
)
from dualasr_lib.model.zipformer.masking import draw_features, feature_mask
from dualasr_lib.model.zipformer.normalisation import Bypass
from dualasr_lib.model.zipformer.scheduled import Scheduled
from dualasr_lib.model.zipformer.streaming import ChunkSpec, unfilled
from dualasr_lib.model.zipformer.training_aids import Aids

__all__ = ["Downsample", "Prepared", "StackConfig", "Zipformer", "ZipformerState", "fit_channels"]

_POSITION_DROPOUT = 0.15  # as published


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """One stack: `layers` layers at 1/`downsampling` of the input frame rate."""

    layers: int = 2
    """Number of layers."""
    downsampling: int = 1
    """Frames averaged into one."""
    layer: LayerConfig = field(default_factory=LayerConfig)
    """Sizes of each layer."""
    unmasked_dim: int = 0
    """Channels never masked in training (see `masking.feature_mask`); 0 = all of them."""

    def __post_init__(self) -> None:
        if self.layers < 1 or self.downsampling < 1:
            raise ValueError(
                "layers and downsampling must be at least 1, "
                f"but are {self.layers} and {self.downsampling}"
            )
        if not 0 <= self.unmasked_dim <= self.layer.dim:
            raise ValueError(
                f"unmasked_dim must lie in 0..{self.layer.dim}, the layer's dim, "
                f"but is {self.unmasked_dim}"
            )


class ZipformerState(NamedTuple):
    """Caches of all layers and the age of each stream."""

    layers: tuple[tuple[LayerState, ...], ...]
    """One tuple per stack, one state per layer."""
    processed: Tensor
    """(N,) int64 input frames seen so far."""


class Prepared(NamedTuple):
    """What the steps of streams of one chunk length share."""

    chunk: ChunkSpec
    """Chunk and left context in input frames."""
    constants: tuple[tuple[LayerConstants, ...], ...]
    """One tuple per stack, one entry per layer."""


class Downsample(nn.Module):
    """Learnt weighted mean over groups of `factor` frames."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        if factor > 1:
            self.weights = nn.Parameter(torch.zeros(factor))

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, C) with T a multiple of the factor -> (N, T / factor, C)."""
        if self.factor == 1:
            return x
        groups = x.reshape(x.shape[0], -1, self.factor, x.shape[2])
        return (groups * self.weights.softmax(0)[:, None]).sum(dim=2)


class _Stack(nn.Module):
    def __init__(self, config: StackConfig, causal: bool, place: "_Place") -> None:
        super().__init__()
        self.config = config
        self.downsample = Downsample(config.downsampling)
        self.layers = nn.ModuleList(
            ZipformerLayer(config.layer, causal, _layer_skip(config, place, number))
            for number in range(config.layers)
        )
        if config.downsampling > 1:
            self.bypass = Bypass(config.layer.dim, _aids(config))

    def init_state(self, batch: int, cached: int, device: torch.device) -> tuple[LayerState, ...]:
        return tuple(layer.init_state(batch, cached, device) for layer in self._typed_layers())

    def step(
        self,
        x: Tensor,
        states: tuple[LayerState, ...],
        context: Context,
        constants: tuple[LayerConstants, ...],
        kept: Tensor | None,
    ) -> tuple[Tensor, tuple[LayerState, ...]]:
        inside, following = self.downsample(x), []
        mask = feature_mask(kept, inside, self.config.unmasked_dim)
        inside = inside if mask is None else inside * mask
        for layer, state, known in zip(self._typed_layers(), states, constants):
            inside, state = layer.step(inside, state, context, known)
            inside = inside if mask is None else inside * mask
            following.append(state)
        if self.config.downsampling == 1:
            return inside, tuple(following)
        # torch's repeat_interleave is slow: it looks the frames up by index
        repeated = inside[:, :, None].expand(-1, -1, self.config.downsampling, -1).flatten(1, 2)
        return self.bypass(x, repeated), tuple(following)

    def constants(
        self, window: Window, chunk: int | None, device: torch.device
    ) -> tuple[LayerConstants, ...]:
        positions = position_encoding(window, self.config.layer.attention.position_dim, device)
        if self.training and self.config.layer.aids:
            positions = F.dropout(positions, _POSITION_DROPOUT)
        return tuple(layer.constants(positions, chunk) for layer in self._typed_layers())

    def _typed_layers(self) -> list[ZipformerLayer]:
        return [layer for layer in self.layers if isinstance(layer, ZipformerLayer)]


class Zipformer(nn.Module):
    """Stacks one after the other; `causal` says whether they hear in chunks or in full context.

    (N, T, C of the first stack) -> (N, T, widest C).
    """

    def __init__(self, configs: tuple[StackConfig, ...], causal: bool) -> None:
        super().__init__()
        if not configs:
            raise ValueError("an encoder must have at least one stack, but has none")
        self.configs, self.causal = configs, causal
        self.stacks = nn.ModuleList(
            _Stack(config, causal, _Place(number, len(configs)))
            for number, config in enumerate(configs)
        )
        self.input_dim = configs[0].layer.dim
        self.output_dim = max(config.layer.dim for config in configs)
        self.multiple = max(config.downsampling for config in configs)
        self._masks_channels = any(config.unmasked_dim and config.layer.aids for config in configs)

    def init_state(self, batch: int, chunk: ChunkSpec, device: torch.device) -> ZipformerState:
        """State of streams that start now; `chunk` counts input frames and has a finite left
        context.
        """
        if chunk.left is None:
            raise ValueError("a stream needs a finite left context, but left is None")
        cached = [chunk.downsampled(config.downsampling).left for config in self.configs]
        return self._state(batch, [frames or 0 for frames in cached], device)

    def prepare(self, chunk: ChunkSpec, device: torch.device) -> Prepared:
        """What `step` needs beside its state: a function of the weights, computed once."""
        constants = []
        for stack in self._typed_stacks():
            local = chunk.downsampled(stack.config.downsampling)
            window = Window(1, local.frames, local.frames + (local.left or 0))
            constants.append(stack.constants(window, local.frames, device))
        return Prepared(chunk, tuple(constants))

    def step(
        self, x: Tensor, state: ZipformerState, prepared: Prepared
    ) -> tuple[Tensor, ZipformerState]:
        """One chunk x (N, chunk.frames, C) -> (N, chunk.frames, widest C), next state."""
        if x.shape[1] != prepared.chunk.frames:
            raise ValueError(
                f"a step takes one chunk of {prepared.chunk.frames} frames, but got {x.shape[1]}"
            )
        contexts, known = [], []
        for config, states in zip(self.configs, state.layers):
            factor = config.downsampling
            empty = unfilled(state.processed, states[0].key.shape[1], factor)
            contexts.append(step_context(empty, x.shape[1] // factor))
            known.append(_without_unused(states, empty))
        y, layers = self._run(x, tuple(known), contexts, prepared.constants)
        return y, ZipformerState(layers, state.processed + x.shape[1])

    def forward_chunks(self, x: Tensor, chunk: ChunkSpec) -> Tensor:
        """Whole utterances (N, T, C), T a multiple of the chunk, under the chunk mask."""
        if x.shape[1] % chunk.frames:
            raise ValueError(f"T must be a multiple of {chunk.frames} frames, but is {x.shape[1]}")
        contexts = []
        for config in self.configs:
            local = chunk.downsampled(config.downsampling)
            contexts.append(chunk_context(x.shape[1] // config.downsampling, local, x.device))
        return self._whole(x, contexts)

    def forward_full(self, x: Tensor, lens: Tensor) -> Tensor:
        """Whole utterances x (N, T, C) of lens (N,) valid frames; each hears all of them."""
        frames = x.shape[1]
        x = F.pad(x, (0, 0, 0, -frames % self.multiple))
        index = torch.arange(x.shape[1], device=x.device)
        x = x.masked_fill((index[None, :] >= lens[:, None])[:, :, None], 0.0)
        contexts = []
        for config in self.configs:
            factor = config.downsampling
            local = torch.div(lens + factor - 1, factor, rounding_mode="floor")
            padding = index[None, : x.shape[1] // factor] >= local[:, None]
            contexts.append(full_context(padding))
        return self._whole(x, contexts)[:, :frames]

    def _state(self, batch: int, cached: list[int], device: torch.device) -> ZipformerState:
        layers = tuple(
            stack.init_state(batch, frames, device)
            for stack, frames in zip(self._typed_stacks(), cached)
        )
        return ZipformerState(layers, torch.zeros(batch, dtype=torch.int64, device=device))

    def _whole(self, x: Tensor, contexts: list[Context]) -> Tensor:
        cached = [context.window.left for context in contexts]
        empty = self._state(x.shape[0], cached, x.device)
        constants = tuple(
            stack.constants(context.window, context.chunk, x.device)
            for stack, context in zip(self._typed_stacks(), contexts)
        )
        return self._run(x, empty.layers, contexts, constants)[0]

    def _run(
        self,
        x: Tensor,
        states: tuple[tuple[LayerState, ...], ...],
        contexts: list[Context],
        constants: tuple[tuple[LayerConstants, ...], ...],
    ) -> tuple[Tensor, tuple[tuple[LayerState, ...], ...]]:
        outputs: list[Tensor] = []
        following = []
        kept = draw_features(x.shape[0], self.training and self._masks_channels)
        for stack, state, context, fixed in zip(self._typed_stacks(), states, contexts, constants):
            x = fit_channels(x, stack.config.layer.dim)
            x, state = stack.step(x, state, context, fixed, kept)
            outputs.append(x)
            following.append(state)
        return _latest_channels(outputs), tuple(following)

    def _typed_stacks(self) -> list[_Stack]:
        return [stack for stack in self.stacks if isinstance(stack, _Stack)]


class _Place(NamedTuple):
    """A stack's number among `stacks` stacks."""

    number: int
    stacks: int


def _aids(config: StackConfig) -> Aids:
    return Aids(config.layer.aids)


def _layer_skip(config: StackConfig, place: _Place, layer: int) -> Scheduled:
    """How often a layer is skipped: later layers are brought in later, as published.

    The first 4000 published steps are cut into stacks + 1 windows, the window of a stack into its
    layers; inside its own part the rate falls from 0.5 to 0.035 sqrt(downsampling).
    """
    window = 4000.0 / (place.stacks + 1)
    begin = window * (place.number + 1 + layer / config.layers)
    final = 0.035 * math.sqrt(config.downsampling)
    return _aids(config).rate((begin, 0.5), (begin + window / config.layers, final))


def fit_channels(x: Tensor, dim: int) -> Tensor:
    """The first `dim` channels of x (N, T, C), zero-padded where x has fewer."""
    return x[:, :, :dim] if x.shape[2] >= dim else F.pad(x, (0, dim - x.shape[2]))


def _without_unused(states: tuple[LayerState, ...], unused: Tensor) -> tuple[LayerState, ...]:
    """The caches of attention with zeros where `unused` (N, L) says that nothing was kept yet; an
    exported model is handed zeros there.
    """
    if tracing():
        return states
    if unused.device.type == "cpu" and not bool(unused.any()):
        return states
    empty = unused[:, :, None, None]
    return tuple(
        state._replace(
            key=state.key.masked_fill(empty, 0.0),
            nonlinear=state.nonlinear.masked_fill(empty, 0.0),
            value1=state.value1.masked_fill(empty, 0.0),
            value2=state.value2.masked_fill(empty, 0.0),
        )
        for state in states
    )


def _latest_channels(outputs: list[Tensor]) -> Tensor:
    """Each channel from the latest stack that has it: (N, T, widest C)."""
    pieces = [outputs[-1]]
    for output in reversed(outputs[:-1]):
        width = sum(piece.shape[2] for piece in pieces)
        if output.shape[2] > width:
            pieces.append(output[:, :, width:])
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)
