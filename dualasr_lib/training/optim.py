"""The choice of an optimiser, and the small interface the training loop sees."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import nn

from dualasr_lib.training.adamw import AdamW, AdamWConfig
from dualasr_lib.training.clipping import ClippingConfig, Update
from dualasr_lib.training.scaled_adam import ScaledAdam, ScaledAdamConfig

__all__ = ["OptimConfig", "Optimizer", "build_optimizer"]


class Optimizer(Protocol):
    """Turns gradients into steps. The learning rate is an argument: a schedule owns it."""

    @property
    def clipped_fraction(self) -> float:
        """Fraction of recent steps whose gradient was clipped."""

    def step(self, lr: float) -> Update:
        """One update from the parameters' `.grad`; leaves all untouched if it is not finite."""

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Which optimiser, and its settings."""

    name: Literal["scaled_adam", "adamw"] = "scaled_adam"
    """`adamw` wants a learning rate about 50 times smaller."""
    scaled_adam: ScaledAdamConfig = field(default_factory=ScaledAdamConfig)
    """Used if `name` is scaled_adam."""
    adamw: AdamWConfig = field(default_factory=AdamWConfig)
    """Used if `name` is adamw."""
    clipping: ClippingConfig = field(default_factory=ClippingConfig)
    """Gradient clipping, the same for both."""


def build_optimizer(model: nn.Module, config: OptimConfig) -> Optimizer:
    """The optimiser `config` names, over the trainable parameters of `model`.

    Raises:
        ValueError: the name is unknown or the model has nothing to train.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not named:
        raise ValueError("an optimiser needs at least one trainable parameter, but there is none")
    if config.name == "scaled_adam":
        return ScaledAdam(named, config.scaled_adam, config.clipping)
    if config.name == "adamw":
        return AdamW(named, config.adamw, config.clipping)
    raise ValueError(f"`optim.name` must be scaled_adam or adamw, but is {config.name!r}")
