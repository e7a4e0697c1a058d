"""Convolution module of Zipformer: gated, depthwise, chunk-causal in a streaming stack and
symmetric in a full one.

Depthwise convolution is slow on CPUs (3 % of matrix-product speed), so each is computed as one
batched matrix product per channel over blocks of frames, with the kernel laid out as a Toeplitz
matrix: more arithmetic, about a tenth of the time. tests/model/test_convolution.py holds the slow
reference.

Letters: N batch, T frames, C channels, K kernel (odd), B block length.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualasr_lib.model.zipformer.activations import SWOOSH_R, swoosh_linear
from dualasr_lib.model.zipformer.attention import scaled_linear
from dualasr_lib.model.zipformer.context import Context
from dualasr_lib.model.zipformer.fused import run, windows_by_slices
from dualasr_lib.model.zipformer.regularise import Balance, Balancer, pushed
from dualasr_lib.model.zipformer.streaming import keep_last
from dualasr_lib.model.zipformer.training_aids import Aids

__all__ = [
    "BLOCK",
    "ChunkCausalConv",
    "ConvConstants",
    "ConvolutionModule",
    "SymmetricConv",
    "blockwise_conv",
    "gated",
    "toeplitz",
]

BLOCK = 16
"""Frames per block of a symmetric convolution: the product stays small and the halo cheap."""


def toeplitz(kernel: Tensor, block: int) -> Tensor:
    """(C, K) kernels -> (C, B, B + K - 1) matrices whose row i holds the kernel from column i on.

    With rows one longer than needed and laid end to end, reading rows of the right length shifts
    each row by one more column; what wraps around is zero because K + 1 <= B + K.
    """
    channels, width = kernel.shape
    row = block + width - 1
    padded = F.pad(kernel, (0, row + 1 - width))
    repeated = (
        padded[:, None, :].expand(channels, block, row + 1).reshape(channels, block * (row + 1))
    )
    return repeated[:, : block * row].reshape(channels, block, row)


def blockwise_conv(x: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
    """Applies (C, B, W) matrices to all windows of W frames, B apart, of x (N, T + W - B, C) -> (N,
    T, C), and adds bias (B or 1, C).

    T must be a multiple of B.
    """
    return run(_BlockwiseConv, x, matrix, bias)


class _BlockwiseConv(torch.autograd.Function):
    """One copy into windows, one product, one copy out; the windows are kept for the backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
        batch, _, channels = x.shape
        _, block, width = matrix.shape
        windows = _windows(x.contiguous(), block, 0, width)  # (C, N, T/B, W)
        columns = windows.reshape(channels, -1, width).contiguous()  # one product, not one each
        result = columns @ matrix.to(x.dtype).transpose(1, 2)
        result = result.reshape(channels, batch, -1, block).permute(1, 2, 3, 0)  # (N, T/B, B, C)
        y = x.new_empty(batch, result.shape[1] * block, channels)
        torch.add(result, bias.to(x.dtype), out=y.view(result.shape))
        ctx.save_for_backward(columns, matrix)
        ctx.shape, ctx.bias = x.shape, (bias.shape, bias.dtype)
        return y

    @staticmethod
    def plain(x: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
        batch, _, channels = x.shape
        _, block, width = matrix.shape
        windows = windows_by_slices(x, int(block), int(width))  # (N, T/B, W, C)
        columns = windows.permute(3, 0, 1, 2).reshape(channels, -1, width)
        result = columns @ matrix.transpose(1, 2)
        result = result.reshape(channels, batch, -1, block).permute(1, 2, 3, 0)  # (N, T/B, B, C)
        return (result + bias).flatten(1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        columns, matrix = ctx.saved_tensors
        channels, block, width = matrix.shape
        g = grads[0].to(columns.dtype).reshape(ctx.shape[0], -1, block, channels)
        to_bias = g.sum(dim=(0, 1)).sum_to_size(ctx.bias[0]).to(ctx.bias[1])
        # contiguous for the reason of the forward pass: else 2 C products, each after a copy
        rows = g.permute(3, 0, 1, 2).reshape(channels, -1, block).contiguous()
        to_matrix = (rows.transpose(1, 2) @ columns).to(matrix.dtype)
        to_columns = rows @ matrix.to(rows.dtype)
        parts = to_columns.reshape(channels, ctx.shape[0], -1, width)
        to_x = g.new_zeros(ctx.shape)
        for start in range(0, width, block):  # parts of this size do not overlap
            size = min(block, width - start)
            view = _windows(to_x, block, start, size, parts.shape[2])
            view.add_(parts[:, :, :, start : start + size])
        return to_x, to_matrix, to_bias


def _windows(x: Tensor, block: int, start: int, size: int, count: int | None = None) -> Tensor:
    """(C, N, count, size) view: frames [start, start + size) of each window of x (N, T', C)."""
    batch, frames, channels = x.shape
    count = (frames - size) // block + 1 if count is None else count
    strides = (1, frames * channels, block * channels, channels)
    offset = x.storage_offset() + start * channels
    return x.as_strided((channels, batch, count, size), strides, offset)


def _whole_conv(x: Tensor, constants: "ConvConstants", past: int, future: int) -> Tensor:
    """Whole utterances (N, T, C) through a kernel of past + 1 + future frames."""
    frames = x.shape[1]
    padded = F.pad(x, (0, 0, past, future + -frames % BLOCK))
    return blockwise_conv(padded, constants.matrix, constants.bias)[:, :frames]


def gated(x: Tensor, balance: Balance | None = None) -> Tensor:
    """value * sigmoid(gate), x (N, T, 2 C) holding both -> (N, T, C).

    Args:
        balance: what a balancer of the gate has drawn.
    """
    return F.glu(x, dim=2) if balance is None else run(_Gated, x, balance)


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, balance: Balance) -> Tensor:
        ctx.save_for_backward(x)
        ctx.balance = balance
        return F.glu(x, dim=2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        to_x = torch.ops.aten.glu_backward(grads[0].to(x.dtype), x, 2)
        to_gate = to_x[:, :, to_x.shape[2] // 2 :]
        to_gate.copy_(pushed(to_gate, x[:, :, x.shape[2] // 2 :], ctx.balance))
        return to_x, None


class ConvConstants(NamedTuple):
    """What a depthwise convolution computes from its weights, the same for every call."""

    matrix: Tensor
    """(C, B, W) matrices for `blockwise_conv`."""
    bias: Tensor
    """(B or 1, C)."""


class SymmetricConv(nn.Module):
    """Depthwise convolution that sees K // 2 frames on both sides."""

    history = 0  # cached frames

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.reach = kernel // 2
        bound = kernel**-0.5
        self.weight = nn.Parameter(torch.empty(dim, kernel).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(dim).uniform_(-bound, bound))

    def constants(self, chunk: int | None) -> ConvConstants:
        """Does not depend on the chunk."""
        return ConvConstants(toeplitz(self.weight, BLOCK), self.bias[None])

    def forward(
        self, x: Tensor, cache: Tensor, constants: ConvConstants, padding: Tensor | None
    ) -> Tensor:
        """x (N, T, C) -> (N, T, C); frames behind the end must be zero."""
        return _whole_conv(x, constants, self.reach, self.reach)


class ChunkCausalConv(nn.Module):
    """Depthwise convolution that never leaves its chunk on the right (Zipformer's causal variant).

    A causal convolution of width (K + 1) / 2 reaches into the past; a symmetric one of width K is
    limited to the chunk and scaled near the chunk's edges, where it sees less than K frames.
    """

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.history = kernel // 2
        causal = kernel // 2 + 1
        self.causal_weight = nn.Parameter(torch.empty(dim, causal).uniform_(-1, 1) * causal**-0.5)
        self.chunk_weight = nn.Parameter(torch.empty(dim, kernel).uniform_(-1, 1) * kernel**-0.5)
        self.causal_bias = nn.Parameter(torch.empty(dim).uniform_(-0.1, 0.1))
        self.chunk_bias = nn.Parameter(torch.empty(dim).uniform_(-1, 1) * kernel**-0.5)
        # published: 0, from where ScaledAdam would move it by 1e-5 of the learning rate
        self.edge_scale = nn.Parameter(torch.randn(2, dim, kernel) * 0.01)

    def constants(self, chunk: int | None) -> ConvConstants:
        """For chunks of that many frames; None: those of the causal half alone, see `forward`."""
        if chunk is None:
            return ConvConstants(toeplitz(self.causal_weight, BLOCK), self.causal_bias[None])
        scale = self.edge(chunk)
        causal = toeplitz(self.causal_weight, chunk)  # (C, B, K//2 + B)
        inside = toeplitz(self.chunk_weight, chunk)[:, :, self.history : self.history + chunk]
        matrix = causal + F.pad(inside * scale[:, :, None], (self.history, 0))
        return ConvConstants(matrix, self.causal_bias + self.chunk_bias * scale.t())

    def forward(
        self, x: Tensor, cache: Tensor, constants: ConvConstants, padding: Tensor | None
    ) -> Tensor:
        """x (N, T, C) with T a multiple of the chunk, cache (N, K // 2, C) -> (N, T, C).

        Args:
            constants: those of the chunk.
            padding: None, or (N, T, 1) bool, True behind an utterance's end, where x must be zero:
                then each utterance is one chunk, as long as itself, and `constants` are those of
                chunk None.
        """
        if padding is not None:
            return self._whole(x, constants, padding)
        joined = torch.cat([cache.to(x.dtype), x], dim=1)
        return blockwise_conv(joined, constants.matrix, constants.bias)

    def _whole(self, x: Tensor, constants: ConvConstants, padding: Tensor) -> Tensor:
        centred = ConvConstants(toeplitz(self.chunk_weight, BLOCK), self.chunk_bias[None])
        inside = _whole_conv(x, centred, self.history, self.history)
        scale = self._edge_of_each((~padding).sum(dim=(1, 2)), x.shape[1])
        return _whole_conv(x, constants, self.history, 0) + inside * scale.to(inside.dtype)

    def _edge_of_each(self, lens: Tensor, frames: int) -> Tensor:
        """(N, T, C) factors 1 + left + right for chunks that end with their utterance."""
        index = torch.arange(frames, device=lens.device)
        left = self.edge_scale[0].t()[index.clamp(max=self.kernel - 1)]
        left = left.masked_fill(index[:, None] >= self.kernel, 0.0)
        column = index[None, :] - (lens[:, None] - self.kernel)  # of the right edge's K frames
        inside = (column >= 0) & (column < self.kernel)
        right = self.edge_scale[1].t()[column.clamp(0, self.kernel - 1)]
        return 1.0 + left + right.masked_fill(~inside[:, :, None], 0.0)

    def edge(self, chunk: int) -> Tensor:
        """(C, B) factors 1 + left + right; a chunk shorter than K sees both edges overlap."""
        left, right = self.edge_scale[0], self.edge_scale[1]
        if chunk < self.kernel:
            return 1.0 + left[:, :chunk] + right[:, self.kernel - chunk :]
        surplus = chunk - self.kernel
        return 1.0 + F.pad(left, (0, surplus)) + F.pad(right, (surplus, 0))


class ConvolutionModule(nn.Module):
    """Linear to 2 C, sigmoid gate, depthwise convolution, SwooshR, linear."""

    def __init__(self, dim: int, kernel: int, causal: bool, aids: Aids) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"a convolution kernel must be odd, but is {kernel}")
        self.in_projection = nn.Linear(dim, 2 * dim)
        self.depthwise: ChunkCausalConv | SymmetricConv
        self.depthwise = ChunkCausalConv(dim, kernel) if causal else SymmetricConv(dim, kernel)
        self.out_projection = scaled_linear(dim, dim, 0.05)
        fewest, largest = (
            aids.schedule(*knots)
            for knots in (((0, 0.05), (8000, 0.025)), ((0, 5.0), (8000, 10.0)))
        )
        self.balance_gate = aids.balance(dim, (fewest, 1.0), (1.5, largest))
        fewest, smallest = (
            aids.schedule(*knots) for knots in (((0, 0.1), (8000, 0.05)), ((0, 0.2), (20000, 0.5)))
        )
        shift = SWOOSH_R.shift
        self.balance = aids.balance(dim, (fewest, 1.0), (smallest, 10.0), origin=shift)
        self.whiten = aids.whiten(1, 7.5)

    def constants(self, chunk: int | None) -> ConvConstants:
        """Those of the depthwise convolution; its bias subtracts the activation's shift."""
        matrix, bias = self.depthwise.constants(chunk)
        return ConvConstants(matrix, bias - SWOOSH_R.shift)

    def forward(
        self, x: Tensor, context: Context, constants: ConvConstants, cache: Tensor
    ) -> tuple[Tensor, Tensor]:
        """x (N, T, C), cache (N, K // 2 or 0, C) -> (N, T, C), next cache."""
        gate = self.balance_gate
        balance = gate.draw(x.ndim) if isinstance(gate, Balancer) and x.requires_grad else None
        value = gated(self.in_projection(x), balance)
        if context.padding is not None:
            value = value.masked_fill(context.padding, 0.0)
        u = self.depthwise(value, cache, constants, context.padding)
        out = self.out_projection
        u = self.whiten(self.balance(u))
        return swoosh_linear(u, SWOOSH_R, out.weight, out.bias), keep_last(cache, value)
