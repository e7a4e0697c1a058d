"""The configuration of the joint model: its sizes, and which of its parts there are.

It builds nothing; integration.py and joint.py do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from dualasr_lib.model.heads.registry import HeadsConfig
from dualasr_lib.model.zipformer.stacks import StackConfig
from dualasr_lib.model.zipformer.subsampling import SubsamplingConfig

__all__ = ["BRANCHES", "Branch", "IntegrationName", "ModelConfig"]

Branch = Literal["streaming", "full"]
BRANCHES: tuple[Branch, ...] = ("streaming", "full")

IntegrationName = Literal["cascaded", "parallel", "shared"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of everything. Stacks that no chosen branch passes are not built."""

    MOVED: ClassVar[Mapping[str, str]] = {
        "decoder": "the section model.heads.attention",
        "ctc_dropout": "model.heads.ctc.dropout",
        "decoder_sharing": 'the list of shared heads, model.heads.shared = ["ctc", "attention"]',
    }

    num_features: int = 80
    """Mel bins of a feature frame."""
    branches: tuple[Branch, ...] = BRANCHES
    """Which branches there are. `["full"]` is the full path of the joint model, all of it unmasked:
    a full-context baseline of the same stacks. `["streaming"]` is its streaming path."""
    integration: IntegrationName = "cascaded"
    """What the full-context branch hears: `cascaded` h_s, through stacks of its own at 25 Hz;
    `parallel` the front end, through stacks of its own at 50 Hz; `shared` the front end,
    through the streaming stacks without their mask (`full` is not used)."""
    heads: HeadsConfig = field(default_factory=HeadsConfig)
    """Which heads each branch has, and their sizes."""
    subsampling: SubsamplingConfig = field(default_factory=SubsamplingConfig)
    """Convolutional front end, the same for all branches."""
    streaming: tuple[StackConfig, ...] = (StackConfig(),)
    """Chunk-masked stacks at 50 Hz."""
    full: tuple[StackConfig, ...] = (StackConfig(),)
    """Full-context stacks: see `integration`."""
    warm_up: int = 20000
    """Optimiser steps over which the training aids of the stacks become gentle. They count for the
    20,000 published steps of 600 s of audio: with batches of S seconds on R processes, about
    12,000,000 / (S R) of them are as published."""

    def __post_init__(self) -> None:
        if not self.branches or len(set(self.branches)) != len(self.branches):
            raise ValueError(
                'branches must be ["streaming", "full"] or one of them, '
                f"but are {list(self.branches)}"
            )

        if self.warm_up < 1:
            raise ValueError(f"warm_up must be at least 1 step, but is {self.warm_up}")
        if not self.streaming or not self.full:
            raise ValueError("streaming and full must have at least one stack each")

    def has(self, branch: Branch) -> bool:
        """Whether there is such a branch."""
        return branch in self.branches
