"""AdamW with median clipping behind the same small interface as `ScaledAdam`.

A wrapper around torch's AdamW. Matrices decay, one-dimensional tensors (biases, scales) do not.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dualasr_lib.training.clipping import ClippingConfig, MedianClip, Update

__all__ = ["AdamW", "AdamWConfig"]


@dataclass(frozen=True, kw_only=True)
class AdamWConfig:
    """Settings of `AdamW`."""

    beta1: float = 0.9
    """Decay of the first moments, per step."""
    beta2: float = 0.98
    """Decay of the second moments, per step."""
    eps: float = 1e-8
    """Added to the root of second moments."""
    weight_decay: float = 0.01
    """Decay of matrices per step, relative to the learning rate."""


class AdamW:
    """torch's AdamW over named parameters; gradients are clipped by their plain L2 norm."""

    def __init__(
        self,
        parameters: Iterable[tuple[str, Tensor]],
        config: AdamWConfig,
        clipping: ClippingConfig,
    ) -> None:
        named = list(parameters)
        matrices = [p for _, p in named if p.dim() > 1]
        vectors = [p for _, p in named if p.dim() <= 1]
        self._names = [n for n, p in named if p.dim() > 1] + [n for n, p in named if p.dim() <= 1]
        self._parameters = matrices + vectors
        self._clip = MedianClip(clipping)
        groups: list[dict[str, Any]] = [
            {"params": matrices},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self._adam = torch.optim.AdamW(
            groups,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            weight_decay=config.weight_decay,
        )

    @property
    def clipped_fraction(self) -> float:
        """Fraction of recent steps whose gradient was clipped."""
        return self._clip.clipped_fraction

    @torch.no_grad()
    def step(self, lr: float) -> Update:
        """One update from the parameters' `.grad`."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        squares = [gradient.square().sum() for gradient in gradients]
        update = self._clip.decide(float(torch.stack(squares).sum().sqrt()) if squares else 0.0)
        if update.applied:
            for gradient in gradients:
                gradient.mul_(update.clip_factor)
            for group in self._adam.param_groups:
                group["lr"] = lr
            self._adam.step()
        return update

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors; everything a bit-exact continuation needs."""
        moments = self._adam.state_dict()["state"]
        return {"names": self._names, "moments": moments, "clip": self._clip.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave.

        Raises:
            ValueError: the state belongs to other parameters.
        """
        if state.get("names") != self._names:
            raise ValueError("the optimiser state must belong to the same parameters, but does not")
        groups = self._adam.state_dict()["param_groups"]
        self._adam.load_state_dict({"state": state["moments"], "param_groups": groups})
        self._clip.load_state_dict(state["clip"])
