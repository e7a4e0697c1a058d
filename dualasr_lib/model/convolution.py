"""Convolution module of Zipformer: gated, depthwise, chunk-causal in a streaming stack and
symmetric in a full one.

Depthwise convolution is slow on CPUs (3 % of matrix-product speed), so each is computed as one
batched matrix product per channel over blocks of frames, with the kernel laid out as a Toeplitz
matrix: more arithmetic, about a tenth of the time. tests/model/test_convolution.py holds the slow
reference.

Letters: N batch, T frames, C channels, K kernel (odd), B block length.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualasr_lib.model.activations import SwooshR
from dualasr_lib.model.attention import scaled_linear
from dualasr_lib.model.streaming import Context, keep_last

__all__ = ["ChunkCausalConv", "ConvolutionModule", "SymmetricConv", "blockwise_conv", "toeplitz"]

_BLOCK = (
    16  # frames per block of a symmetric convolution: the product stays small and the halo cheap
)


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


def blockwise_conv(x: Tensor, matrix: Tensor) -> Tensor:
    """Applies (C, B, W) matrices to all windows of W frames, B apart, of x (N, T + W - B, C) -> (N,
    T, C).

    T must be a multiple of B.
    """
    batch, _, channels = x.shape
    _, block, width = matrix.shape
    windows = x.unfold(1, width, block)  # (N, T/B, C, W)
    # (N, T/B, C, W) -> (C, N*T/B, W) @ (C, W, B) -> (C, N*T/B, B)
    columns = windows.permute(2, 0, 1, 3).reshape(channels, -1, width)
    result = columns @ matrix.transpose(1, 2)
    return result.reshape(channels, batch, -1).permute(1, 2, 0)


class SymmetricConv(nn.Module):
    """Depthwise convolution that sees K // 2 frames on both sides."""

    history = 0  # cached frames

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.reach = kernel // 2
        bound = kernel**-0.5
        self.weight = nn.Parameter(torch.empty(dim, kernel).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(dim).uniform_(-bound, bound) * 0.1)

    def forward(self, x: Tensor, cache: Tensor, chunk: int | None) -> Tensor:
        """x (N, T, C) -> (N, T, C); frames behind the end must be zero."""
        frames = x.shape[1]
        surplus = -frames % _BLOCK
        padded = F.pad(x, (0, 0, self.reach, self.reach + surplus))
        return blockwise_conv(padded, toeplitz(self.weight, _BLOCK))[:, :frames] + self.bias


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
        self.causal_bias = nn.Parameter(torch.empty(dim).uniform_(-0.02, 0.02))
        self.chunk_bias = nn.Parameter(torch.empty(dim).uniform_(-0.02, 0.02))
        self.edge_scale = nn.Parameter(torch.randn(2, dim, kernel) * 0.01)

    def forward(self, x: Tensor, cache: Tensor, chunk: int | None) -> Tensor:
        """x (N, T, C) with T a multiple of `chunk`, cache (N, K // 2, C) -> (N, T, C)."""
        if chunk is None:
            raise ValueError(
                "a chunk-causal convolution needs a chunk length, but got full context"
            )
        scale = self.edge(chunk)
        causal = toeplitz(self.causal_weight, chunk)  # (C, B, K//2 + B)
        inside = toeplitz(self.chunk_weight, chunk)[:, :, self.history : self.history + chunk]
        matrix = causal + F.pad(inside * scale[:, :, None], (self.history, 0))
        bias = self.causal_bias + self.chunk_bias * scale.t()  # (B, C)
        y = blockwise_conv(torch.cat([cache, x], dim=1), matrix)
        return y + bias.repeat(x.shape[1] // chunk, 1)

    def edge(self, chunk: int) -> Tensor:
        """(C, B) factors 1 + left + right; a chunk shorter than K sees both edges overlap."""
        left, right = self.edge_scale[0], self.edge_scale[1]
        if chunk < self.kernel:
            return 1.0 + left[:, :chunk] + right[:, self.kernel - chunk :]
        surplus = chunk - self.kernel
        return 1.0 + F.pad(left, (0, surplus)) + F.pad(right, (surplus, 0))


class ConvolutionModule(nn.Module):
    """Linear to 2 C, sigmoid gate, depthwise convolution, SwooshR, linear."""

    def __init__(self, dim: int, kernel: int, causal: bool) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"a convolution kernel must be odd, but is {kernel}")
        self.in_projection = nn.Linear(dim, 2 * dim)
        self.depthwise: ChunkCausalConv | SymmetricConv
        self.depthwise = ChunkCausalConv(dim, kernel) if causal else SymmetricConv(dim, kernel)
        self.activation = SwooshR()
        self.out_projection = scaled_linear(dim, dim, 0.05)

    def forward(self, x: Tensor, context: Context, cache: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, T, C), cache (N, K // 2 or 0, C) -> (N, T, C), next cache."""
        value, gate = self.in_projection(x).chunk(2, dim=2)
        value = value * gate.sigmoid()
        if context.padding is not None:
            value = value.masked_fill(context.padding, 0.0)
        y = self.depthwise(value, cache, context.chunk)
        return self.out_projection(self.activation(y)), keep_last(cache, value)
