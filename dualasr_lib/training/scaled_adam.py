"""ScaledAdam: Adam whose step is relative to the size of each tensor, and which learns that size.

Source: Zipformer, arXiv 2310.11230, section 3.5; constants as in its published recipe. For a
tensor p with gradient g, bias-corrected moments m (of g) and v (of g^2), and r = rms(p):

    direction   p += -lr * r * m / (sqrt(v) + eps)               r limited to [min_rms, max_rms]
    size        p += p * s,   s = -lr * eta * n / (sqrt(w) + eps)

where n and w are the moments of h = <p, g>, the gradient of log|p|, and eta = `scalar_lr_scale`.
The size step is taken every `size_update_period` steps for all of them at once and limited to
+-0.1. A tensor outside the limits of its rms grows or shrinks at full rate instead. Tensors with
one element have no size: plain Adam with lr * eta.

The result does not depend on the scale of the loss. A tensor that starts at exactly zero moves by
lr * min_rms a step: initialise it small, but not zero. Left out: learning rates per module.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dualasr_lib.training.clipping import ClippingConfig, MedianClip, Update

__all__ = ["ScaledAdam", "ScaledAdamConfig"]

_MAX_SIZE_STEP = 0.1  # of the published optimiser


@dataclass(frozen=True, kw_only=True)
class ScaledAdamConfig:
    """Settings of `ScaledAdam`."""

    beta1: float = 0.9
    """Decay of the first moments, per step."""
    beta2: float = 0.98
    """Decay of the second moments, per step."""
    eps: float = 1e-8
    """Added to the root of second moments."""
    scalar_lr_scale: float = 0.1
    """eta: learning rate of sizes and of one-element tensors, relative to the others."""
    size_update_period: int = 4
    """Steps between two changes of the sizes."""
    min_rms: float = 1e-5
    """Smaller tensors move as if they were this large."""
    max_rms: float = 3.0
    """Larger tensors are shrunk."""

    def __post_init__(self) -> None:
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ValueError(f"betas must lie in [0, 1), but are {self.beta1} and {self.beta2}")
        if self.size_update_period < 1:
            raise ValueError(
                f"`size_update_period` must be at least 1, but is {self.size_update_period}"
            )
        if not 0 < self.min_rms < self.max_rms:
            raise ValueError(
                f"0 < min_rms < max_rms must hold, but they are {self.min_rms}, {self.max_rms}"
            )


class ScaledAdam:
    """ScaledAdam over named parameters; same-shape parameters are updated as one tensor."""

    def __init__(
        self,
        parameters: Iterable[tuple[str, Tensor]],
        config: ScaledAdamConfig,
        clipping: ClippingConfig,
    ) -> None:
        self._batches = _group(parameters, config)
        self._clip = MedianClip(clipping)
        self._steps = 0

    @property
    def clipped_fraction(self) -> float:
        """Fraction of recent steps whose gradient was clipped."""
        return self._clip.clipped_fraction

    @torch.no_grad()
    def step(self, lr: float) -> Update:
        """One update from the parameters' `.grad` (none counts as zero).

        Clipping looks at the root of the sum of (rms(p) * |g|)^2: the gradient as seen by sizes.
        """
        sizes = [batch.rms() for batch in self._batches]
        norms = [batch.weighted_norms(rms) for batch, rms in zip(self._batches, sizes)]
        update = self._clip.decide(float(torch.cat(norms).square().sum().sqrt()))
        if update.applied:
            self._steps += 1
            for batch, rms in zip(self._batches, sizes):
                batch.update(rms, update.clip_factor, lr, self._steps)
        return update

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors; everything a bit-exact continuation needs."""
        batches = [batch.state_dict() for batch in self._batches]
        return {"steps": self._steps, "clip": self._clip.state_dict(), "batches": batches}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave.

        Raises:
            ValueError: the state belongs to other parameters.
        """
        names, expected = ([b["names"] for b in s["batches"]] for s in (state, self.state_dict()))
        if names != expected:
            other = {name for batch in names for name in batch}
            own = {name for batch in expected for name in batch}
            raise ValueError(
                "the optimiser state must belong to the same parameters, but these differ: "
                f"{sorted(own ^ other)[:5] or 'their shapes or order'}"
            )
        self._steps = state["steps"]
        self._clip.load_state_dict(state["clip"])
        for batch, saved in zip(self._batches, state["batches"]):
            batch.load_state_dict(saved)


class _Batch:
    """B parameters of one shape with their moments, each stacked to (B, *shape)."""

    def __init__(self, named: list[tuple[str, Tensor]], config: ScaledAdamConfig) -> None:
        self.names = [name for name, _ in named]
        self._parameters = [parameter for _, parameter in named]
        self._config = config
        self._is_scalar = self._parameters[0].numel() == 1
        zeros = torch.zeros_like(torch.stack(self._parameters))
        self._moments = {"mean": zeros, "square": zeros.clone()}
        if not self._is_scalar:
            for name in ("size_mean", "size_square", "size_sum", "size_square_sum"):
                self._moments[name] = zeros.new_zeros(len(named), *[1] * (zeros.dim() - 1))

    def rms(self) -> Tensor:
        """(B,) root mean square of each parameter."""
        root = math.sqrt(self._parameters[0].numel())
        return torch.stack(torch._foreach_norm(self._parameters)) / root

    def weighted_norms(self, rms: Tensor) -> Tensor:
        """(B,) |g| * rms(p); one-element tensors count unweighted."""
        norms = torch.stack(torch._foreach_norm(self._gradients()))
        return norms if self._is_scalar else norms * rms

    def update(self, rms: Tensor, clip_factor: float, lr: float, steps: int) -> None:
        """Moves the parameters; `steps` counts from 1 and includes this one.

        Large tensors are written in place, in as few passes over memory as the formulas allow.
        """
        value = torch.stack(self._parameters)  # (B, *shape)
        gradient = torch.stack(self._gradients()).mul_(clip_factor)
        self._collect_moments(gradient)
        if self._is_scalar:
            rate = torch.full_like(value, -lr * self._config.scalar_lr_scale)
        else:
            rms = rms.view_as(self._moments["size_sum"])
            rate = rms.clamp(self._config.min_rms, self._config.max_rms) * -lr
            dots = torch.mul(value, gradient, out=gradient).flatten(1).sum(1)
            self._collect_size_gradient(dots.view_as(rms))
            if steps % self._config.size_update_period == 0:
                value *= 1 + self._size_step(rms, lr, steps)
        direction = self._direction(steps, out=gradient)
        value.addcmul_(direction, rate / self._correction(steps))
        for parameter, new in zip(self._parameters, value.unbind()):
            parameter.copy_(new)

    def state_dict(self) -> dict[str, Any]:
        return {"names": list(self.names), **self._moments}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, moment in self._moments.items():
            moment.copy_(state[name])

    def _gradients(self) -> list[Tensor]:
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]

    def _collect_moments(self, gradient: Tensor) -> None:
        beta1, beta2 = self._config.beta1, self._config.beta2
        self._moments["mean"].mul_(beta1).add_(gradient, alpha=1 - beta1)
        self._moments["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)

    def _direction(self, steps: int, out: Tensor) -> Tensor:
        """(B, *shape) m / (sqrt(v) + eps), both bias-corrected, times `_correction`; in `out`."""
        eps = self._config.eps * math.sqrt(1 - self._config.beta2**steps)
        torch.sqrt(self._moments["square"], out=out).add_(eps)
        return torch.div(self._moments["mean"], out, out=out)

    def _correction(self, steps: int) -> float:
        """What the bias corrections of both moments amount to."""
        return (1 - self._config.beta1**steps) / math.sqrt(1 - self._config.beta2**steps)

    def _collect_size_gradient(self, gradient: Tensor) -> None:
        self._moments["size_sum"] += gradient
        self._moments["size_square_sum"] += gradient.square()

    def _size_step(self, rms: Tensor, lr: float, steps: int) -> Tensor:
        """(B, 1, ...) relative growth for the `size_update_period` steps since the last call."""
        period = self._config.size_update_period
        full = lr * self._config.scalar_lr_scale * period
        beta1, beta2 = self._config.beta1**period, self._config.beta2**period
        updates = steps // period
        mean, square = self._moments["size_mean"], self._moments["size_square"]
        mean.mul_(beta1).add_(self._moments["size_sum"], alpha=(1 - beta1) / period)
        square.mul_(beta2).add_(self._moments["size_square_sum"], alpha=(1 - beta2) / period)
        self._moments["size_sum"].zero_()
        self._moments["size_square_sum"].zero_()
        root = (square / (1 - beta2**updates)).sqrt_().add_(self._config.eps)
        step = mean / (1 - beta1**updates) / root * -full
        step = step.masked_fill(rms < self._config.min_rms, full)
        step = step.masked_fill(rms > self._config.max_rms, -full)
        return step.clamp(-_MAX_SIZE_STEP, _MAX_SIZE_STEP)


def _group(parameters: Iterable[tuple[str, Tensor]], config: ScaledAdamConfig) -> list[_Batch]:
    groups: dict[tuple[Any, ...], list[tuple[str, Tensor]]] = {}
    for name, parameter in parameters:
        key = (tuple(parameter.shape), parameter.dtype, parameter.device)
        groups.setdefault(key, []).append((name, parameter))
    if not groups:
        raise ValueError("an optimiser needs at least one parameter, but the model has none")
    return [_Batch(named, config) for named in groups.values()]
