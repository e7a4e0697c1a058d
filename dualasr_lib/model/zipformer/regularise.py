"""Zipformer's training-time regularisers: the forward pass stays as it is, the gradient is nudged.

`Balancer` and `Whiten` keep activations healthy, `limit_value` keeps parameters inside their range.
Source: arXiv 2310.11230 (Zipformer) and its public description; what differs is said where it does.

Each acts with a probability only. The draws come from torch's generator of the CPU, so a seed fixes
them and no GPU is waited for. Where nothing was drawn, in evaluation and where no gradient is asked
for, the input itself is returned and no autograd node is added. All sizes are relative to the
incoming gradient, so that neither the normalisation nor the scaling (float16) of the loss matters.
The added terms are computed in float32. Second derivatives are not supported.

Letters: N batch, T frames, C channels, G groups, D = C / G channels of a group.
"""

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dualasr_lib.model.zipformer.scheduled import Scheduled

__all__ = [
    "Balance",
    "Balancer",
    "Limits",
    "Whiten",
    "affine_push",
    "limit_value",
    "pushed",
    "whiteness",
]

_FEW = 1024  # frames that are enough for means and squares of a channel
_PER_CHANNEL = 4  # frames per channel that are enough for a covariance: noise measures 1 + 1/4
_THINNEST = 16  # at most every 16th frame: what is left still comes from all over the batch
_TINY = 1e-20
_FLATTEST = 1e-4  # a variance counts as at least this share of the mean square
_RMS_PER_ABS = math.sqrt(math.pi / 2.0)  # of a Gaussian of mean 0


Limits = tuple[float | Scheduled, float | Scheduled]
"""Lowest and highest value wanted."""


class _Range(NamedTuple):
    low: float
    high: float


class Balance(NamedTuple):
    """What a balancer wants in one step."""

    channel_dim: int
    ratio: _Range
    rms: _Range
    grad_scale: float
    origin: float
    phase: float


class Balancer(nn.Module):
    """Pushes each channel's share of positive values and mean absolute value into their ranges.

    Over all frames of a channel let r = mean / std and s = rms. Taking the channel for a Gaussian,
    the share of positive values asks for r in [r1, r2] (r = quantile of the share; the publication
    approximates it) and the mean absolute value for s in [s1, s2] (rms = sqrt(pi / 2) abs). With

        L = (r - clamp(r, r1, r2))^2 / 2 + |log(clamp(s, s1, s2) / s)|

    and d = dL/dx divided by its rms over the channel's frames (d = 0 where L = 0), the gradient g
    of the input becomes g + grad_scale |g| d, element by element. r and s come from a strided
    subset of 1024 frames or more; padding counts as frames, as published, but has no gradient.
    """

    def __init__(
        self,
        channels: int,
        channel_dim: int = -1,
        *,
        positive: Limits = (0.05, 0.95),
        absolute: Limits = (0.2, 100.0),
        grad_scale: float = 0.04,
        prob: float | Scheduled | None = None,
        origin: float = 0.0,
    ) -> None:
        """
        Args:
            positive: range of a channel's share of positive values.
            absolute: range of its mean absolute value.
            prob: None is the published schedule, 0.5 falling to 0.125 over 8000 steps.
            origin: what is balanced is x + origin.
        """
        super().__init__()
        self.channels, self.channel_dim = channels, channel_dim
        self.grad_scale, self.origin = grad_scale, origin
        self.min_positive, self.max_positive = positive
        self.min_abs, self.max_abs = absolute
        self.prob = Scheduled((0, 0.5), (8000, 0.125), saved=False) if prob is None else prob
        shares, sizes = (tuple(map(_now, limits)) for limits in (positive, absolute))
        if not 0.0 <= shares[0] < shares[1] <= 1.0:
            raise ValueError(
                f"shares of positive values must hold 0 <= min < max <= 1, but are {shares}"
            )
        if not 0.0 <= sizes[0] < sizes[1]:
            raise ValueError(f"mean absolute values must hold 0 <= min < max, but are {sizes}")

    def forward(self, x: Tensor) -> Tensor:
        """x with `channels` channels along `channel_dim` -> x."""
        if x.shape[self.channel_dim] != self.channels:
            raise ValueError(
                f"dimension {self.channel_dim} must have {self.channels} channels, "
                f"but the shape is {tuple(x.shape)}"
            )
        wanted = self.draw(x.ndim) if _pushable(x) else None
        return x if wanted is None else _Balanced.apply(x, wanted)

    def draw(self, ndim: int) -> Balance | None:
        """What is wanted of an input of `ndim` dimensions in this step; None = nothing."""
        phase = _draw(_now(self.prob), self.training)
        if phase is None:
            return None
        ratio = _Range(_quantile(_now(self.min_positive)), _quantile(_now(self.max_positive)))
        rms = _Range(_RMS_PER_ABS * _now(self.min_abs), _RMS_PER_ABS * _now(self.max_abs))
        dim = self.channel_dim % ndim
        return Balance(dim, ratio, rms, self.grad_scale, self.origin, phase)


class _Balanced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, wanted: Balance) -> Tensor:
        ctx.save_for_backward(x)
        ctx.wanted = wanted
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return pushed(grads[0], x, ctx.wanted), None


def pushed(grad: Tensor, x: Tensor, wanted: Balance) -> Tensor:
    """The gradient `grad` of x with what a `Balancer` adds; both of one shape."""
    offset, slope = affine_push(x, wanted)
    if _known_zero(offset, slope):
        return grad
    wide = grad.float()
    push = torch.addcmul(offset, slope, x.float())
    return push.mul_(wide.abs()).add_(wide).to(grad.dtype)


def affine_push(x: Tensor, wanted: Balance) -> tuple[Tensor, Tensor]:
    """grad_scale * d of `Balancer` is offset + slope * x; both are x's shape with frames of 1.

    With u = x / rms, m = mean / rms, q = rms / std, r = m q and e = r - clamp(r), times rms:
        dr/du = q - r q^2 (u - m)          d|log|/du = sign(rms - clamp(rms)) u
    As u - m has variance 1 / q^2, the rms of push + slope (u - m) is
    sqrt(push^2 + slope^2 / q^2).
    """
    sample = x[_thinning(x, wanted.channel_dim, _FEW, wanted.phase)]
    dims = [dim for dim in range(x.ndim) if dim != wanted.channel_dim]
    sample = sample.float() + wanted.origin
    mean = sample.mean(dims, keepdim=True)
    rms = sample.square().mean(dims, keepdim=True).clamp(min=_TINY).sqrt()
    m = mean / rms
    q = (1.0 - m.square()).clamp(min=_FLATTEST).rsqrt()
    r = m * q
    excess = r - r.clamp(*wanted.ratio)
    loud = (rms - rms.clamp(*wanted.rms)).sign()
    slope = loud - excess * r * q.square()
    push = excess * q + loud * m
    size = (push.square() + (slope / q).square()).sqrt()
    scale = wanted.grad_scale / size.clamp(min=_TINY)
    by_x = scale * slope / rms
    return scale * (push - slope * m) + by_x * wanted.origin, by_x


class Whiten(nn.Module):
    """Keeps the covariance of the channels from being ruled by a few directions.

    C is the covariance (D, D) of each group over all frames. The metric of `whiteness`, 1 for a
    flat spectrum and up to C channels for a single direction, should stay below `limit`. Where it
    does not, d = d metric / dx is added to the gradient g, scaled to grad_scale * ||g|| / ||d||.

    Both come from every k-th frame, at least max(1024, 4 D) of them: the covariance is estimated on
    them and d is added to them alone, k times larger, which over many draws comes to the same. Only
    these frames are kept for the backward pass.

    Published: probability 0.25 after the metric was found too high, 0.025 after it was not. That
    saves time only, and here a look is cheap; one probability needs no memory of earlier steps, so
    that a resumed run draws what an uninterrupted one draws.
    """

    def __init__(
        self,
        groups: int,
        limit: float | Scheduled,
        prob: float | Scheduled = 0.25,
        grad_scale: float = 0.01,
    ) -> None:
        super().__init__()
        if groups < 1 or _now(limit) < 1.0:
            raise ValueError(
                f"groups and limit must be at least 1, but are {groups} and {_now(limit)}"
            )
        self.groups, self.limit, self.prob, self.grad_scale = groups, limit, prob, grad_scale

    def forward(self, x: Tensor) -> Tensor:
        """x (..., C) -> x."""
        if x.shape[-1] % self.groups:
            raise ValueError(
                f"channels must be a multiple of {self.groups} groups, but are {x.shape[-1]}"
            )
        phase = _draw(_now(self.prob), self.training) if _pushable(x) else None
        if phase is None:
            return x
        wanted = _Whiter(self.groups, _now(self.limit), self.grad_scale, phase)
        result: Tensor = _Whitened.apply(x, wanted)
        return result


class _Whiter(NamedTuple):
    """What a whitener wants in one step."""

    groups: int
    limit: float
    grad_scale: float
    phase: float


class _Whitened(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, wanted: _Whiter) -> Tensor:
        few = max(_FEW, _PER_CHANNEL * x.shape[-1] // wanted.groups)
        ctx.index = _thinning(x, x.ndim - 1, few, wanted.phase)
        ctx.save_for_backward(x[ctx.index].contiguous())
        ctx.wanted = wanted
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (sample,) = ctx.saved_tensors
        (grad,) = grads
        with torch.autocast(grad.device.type, enabled=False):
            push = _whitening_push(sample, ctx.wanted)
            if push is None:
                return grad, None
            every = grad.numel() / sample.numel()
            size = torch.linalg.vector_norm(grad, dtype=torch.float32) * every**0.5
            pushed = grad.clone(memory_format=torch.contiguous_format)
            pushed[ctx.index] += push.mul_(size).to(grad.dtype)
        return pushed, None


def _whitening_push(x: Tensor, wanted: _Whiter) -> Tensor | None:
    """d of `Whiten` with norm grad_scale, of x's shape; zero (or None) up to the limit.

    With F = C / (mean diagonal of C), metric = mean over channels of the row sums of F^2, so that
    d = (x - mean) (F - metric I) up to a positive factor, and
    ||d||^2 = frames * trace((F - metric I) C (F - metric I)).
    """
    mean, covariance = _covariance(x, wanted.groups)
    flat = _levelled(covariance)
    metric = flat.square().sum() / x.shape[-1]
    pushing = metric > wanted.limit
    if _known_zero(pushing):
        return None
    direction = flat - metric * torch.eye(flat.shape[-1], device=x.device)
    frames = _by_group(x.float(), wanted.groups)
    square = frames.shape[1] * ((direction @ covariance) * direction).sum()
    direction = direction * (wanted.grad_scale * pushing / square.clamp(min=_TINY).sqrt())
    # (G, n, D) @ (G, D, D), the mean of the frames taken off behind the product
    push = torch.baddbmm(-(mean @ direction), frames, direction)
    return push.transpose(0, 1).reshape(x.shape)


def whiteness(x: Tensor, groups: int = 1) -> Tensor:
    """trace(C C) C' / trace(C)^2 of x (..., C') with covariance C of each group: a scalar >= 1.

    All groups share the traces; 1 means a flat spectrum.
    """
    _, covariance = _covariance(x, groups)
    return _levelled(covariance).square().sum() / x.shape[-1]


def _covariance(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """x (..., C) -> means (G, 1, D) and covariances (G, D, D), float32."""
    frames = _by_group(x.float(), groups)
    mean = frames.mean(dim=1, keepdim=True)
    centred = frames - mean
    return mean, centred.transpose(1, 2) @ centred / frames.shape[1]


def _levelled(covariance: Tensor) -> Tensor:
    """(G, D, D) divided by the mean of all variances: the scale of the activations is gone."""
    return covariance / covariance.diagonal(dim1=1, dim2=2).mean().clamp(min=_TINY)


def _by_group(x: Tensor, groups: int) -> Tensor:
    """(..., C) -> (G, n, D)."""
    return x.reshape(-1, groups, x.shape[-1] // groups).transpose(0, 1)


def limit_value(
    x: Tensor, low: float, high: float, prob: float = 0.6, training: bool = True
) -> Tensor:
    """A parameter x, unchanged; outside [low, high] its gradient gets the sign that leads back.

    The size of the gradient stays. A clamp would stop it instead: what is outside would stay there.
    """
    if low > high:
        raise ValueError(f"low must not be above high, but they are {low} and {high}")
    if not _pushable(x) or _draw(prob, training) is None:
        return x
    result: Tensor = _Limited.apply(x, low, high)
    return result


class _Limited(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.low, ctx.high = low, high
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        (grad,) = grads
        grad = torch.where(x < ctx.low, -grad.abs(), grad)
        return torch.where(x > ctx.high, grad.abs(), grad), None, None


def _now(value: float | Scheduled) -> float:
    return value.now() if isinstance(value, Scheduled) else value


def _pushable(x: Tensor) -> bool:
    return x.requires_grad and x.numel() > 0


def _draw(prob: float, training: bool) -> float | None:
    """With probability `prob` a number in [0, 1), uniform; else None, or where no gradient is."""
    if not (training and prob > 0.0 and torch.is_grad_enabled()):
        return None
    drawn = torch.rand((), device="cpu").item()
    return drawn / prob if drawn < prob else None


def _quantile(share: float) -> float:
    """mean / std of a Gaussian with this share of positive values."""
    if share <= 0.0 or share >= 1.0:
        return math.copysign(math.inf, share - 0.5)
    return NormalDist().inv_cdf(share)


def _thinning(x: Tensor, channel_dim: int, enough: int, phase: float) -> tuple[slice, ...]:
    """Every k-th index of the longest dimension but the channels', with `enough` frames or more."""
    every = max(1, min(x.numel() // x.shape[channel_dim] // enough, _THINNEST))
    others = [dim for dim in range(x.ndim) if dim != channel_dim]
    longest = max(others, key=lambda dim: x.shape[dim])
    indices = [slice(None)] * x.ndim
    indices[longest] = slice(int(phase * every), None, every)
    return tuple(indices)


def _known_zero(*tensors: Tensor) -> bool:
    """All are zero, where looking costs nothing: on a GPU it would have to be waited for."""
    return all(t.device.type == "cpu" and not bool(t.any()) for t in tensors)
