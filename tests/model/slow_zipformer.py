"""A Zipformer written out with elementary operations over the whole T x T attention map: the slow
reference of the fast one. It reads the weights of a `Zipformer` in evaluation mode.

No blocks, no windows, no Toeplitz matrices, no fused functions, no caches.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dualasr_lib.model.zipformer.stacks import Zipformer
from dualasr_lib.model.zipformer.streaming import ChunkSpec

__all__ = ["slow_forward"]


def slow_forward(encoder: Zipformer, x: Tensor, chunk: ChunkSpec | None) -> Tensor:
    """(N, T, C) -> (N, T, widest C), T a multiple of the chunk; None = full context."""
    outputs = []
    for stack, config in zip(encoder.stacks, encoder.configs):
        dim, factor = config.layer.dim, config.downsampling
        x = x[:, :, :dim] if x.shape[2] >= dim else F.pad(x, (0, dim - x.shape[2]))
        inside = x
        if factor > 1:
            share = stack.downsample.weights.softmax(0)
            inside = sum(share[i] * x[:, i::factor] for i in range(factor))
        local = None if chunk is None else chunk.downsampled(factor)
        for layer in stack.layers:
            inside = _layer(layer, inside, local)
        if factor > 1:
            repeated = inside.repeat_interleave(factor, dim=1)
            inside = x + (repeated - x) * stack.bypass.scale
        x = inside
        outputs.append(x)
    y = outputs[-1]
    for output in reversed(outputs[:-1]):
        y = torch.cat([y, output[:, :, y.shape[2] :]], dim=2)
    return y


def _layer(layer, x, chunk):
    start = x
    weights = _weights(layer.weights, x, chunk)
    x = x + _feedforward(layer.feedforward1, x)
    x = x + _nonlinear(layer.nonlinear, x, weights[:, 0])
    x = x + _attention(layer.attention1, x, weights)
    x = x + _convolution(layer.conv1, x, chunk)
    x = x + _feedforward(layer.feedforward2, x)
    x = start + (x - start) * layer.bypass_mid.scale
    x = x + _attention(layer.attention2, x, weights)
    x = x + _convolution(layer.conv2, x, chunk)
    x = x + _feedforward(layer.feedforward3, x)
    rms = (x - layer.norm.bias).square().mean(-1, keepdim=True).sqrt()
    x = x * layer.norm.log_scale.exp() / rms
    return start + (x - start) * layer.bypass.scale


def _weights(module, x, chunk):
    """(N, H, T, T)"""
    config, frames = module.config, x.shape[1]
    q, k, p = module.in_projection(x).split([module.query, module.query, module.position], dim=2)
    distance = torch.arange(frames)[:, None] - torch.arange(frames)[None, :]
    table = module.position_projection(_encoding(distance, config.position_dim).to(x.dtype))
    q, k, p = (t.unflatten(2, (config.heads, -1)) for t in (q, k, p))
    scores = torch.einsum("nthd,nkhd->nhtk", q, k)
    scores = scores + torch.einsum("nthd,tkhd->nhtk", p, table.unflatten(2, (config.heads, -1)))
    if chunk is not None:
        index = torch.arange(frames) // chunk.frames
        behind = index[:, None] - index[None, :]
        hidden = behind < 0
        if chunk.left is not None:
            hidden = hidden | (behind > chunk.left // chunk.frames)
        scores = scores.masked_fill(hidden, -math.inf)
    return scores.softmax(3)


def _encoding(distance, dim):
    width = math.sqrt(dim)
    distance = distance.double()
    squeezed = width * distance.sign() * ((distance.abs() + width).log() - math.log(width))
    angle = (squeezed * 2 * math.pi / dim).atan()[..., None] * torch.arange(1, dim // 2 + 1)
    encoding = torch.stack([angle.cos(), angle.sin()], dim=-1).flatten(-2)
    encoding[..., -1] = 1.0
    return encoding.float()


def _feedforward(module, x):
    hidden = module.in_projection(x)
    hidden = F.softplus(hidden - 4.0) - 0.08 * hidden - 0.035
    return module.out_projection(hidden)


def _attention(module, x, weights):
    value = module.in_projection(x).unflatten(2, (weights.shape[1], -1))
    return module.out_projection(torch.einsum("nhtk,nkhd->nthd", weights, value).flatten(2))


def _nonlinear(module, x, weights):
    s, value, gate = module.in_projection(x).chunk(3, dim=2)
    return module.out_projection((weights @ (value * s.tanh())) * gate)


def _convolution(module, x, chunk):
    value, gate = module.in_projection(x).chunk(2, dim=2)
    value = value * gate.sigmoid()
    conv = module.depthwise
    if hasattr(conv, "weight"):  # symmetric
        y = _depthwise(value, conv.weight, conv.reach, conv.reach) + conv.bias
    else:
        frames = x.shape[1] if chunk is None else chunk.frames
        reach, parts = conv.kernel // 2, []
        for part in value.split(frames, dim=1):
            centred = _depthwise(part, conv.chunk_weight, reach, reach) + conv.chunk_bias
            parts.append(centred * conv.edge(frames).t())
        y = torch.cat(parts, dim=1) + conv.causal_bias
        y = y + _depthwise(value, conv.causal_weight, reach, 0)
    y = F.softplus(y - 1.0) - 0.08 * y - 0.313261687
    return module.out_projection(y)


def _depthwise(x, kernel, left, right):
    padded = F.pad(x.transpose(1, 2), (left, right))
    return F.conv1d(padded, kernel[:, None], groups=x.shape[2]).transpose(1, 2)
