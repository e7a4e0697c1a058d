"""The configuration of a transducer and of its loss, with the published values as defaults.

Published: the public Zipformer recipes of icefall (pruned, stateless; LibriSpeech and others).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from dualasr_lib.model.transducer.recursion import Topology
from dualasr_lib.model.zipformer.scheduled import Knot, interpolate

__all__ = ["PUBLISHED_CTC_SHARE", "LossWeights", "TransducerConfig", "TransducerLossConfig"]

PUBLISHED_CTC_SHARE = 0.2
"""Weight of a CTC loss beside the transducer's in the published recipe (0.1 with consistency
regularisation)."""


@dataclass(frozen=True, kw_only=True)
class TransducerConfig:
    """Sizes of one transducer."""

    dim: int = 512
    """Channels of the prediction network (published), a multiple of 4."""
    joiner_dim: int = 512
    """Channels D of the joiner (published)."""
    context: int = 2
    """Tokens that the prediction network looks back (published)."""

    def __post_init__(self) -> None:
        if self.dim < 4 or self.dim % 4:
            raise ValueError(f"dim must be a positive multiple of 4, but is {self.dim}")
        if self.joiner_dim < 1 or self.context < 1:
            raise ValueError(
                f"joiner_dim and context must be at least 1, but are {self.joiner_dim} and "
                f"{self.context}"
            )


class LossWeights(NamedTuple):
    """Weights of the two losses of a transducer."""

    simple: float
    pruned: float


@dataclass(frozen=True, kw_only=True)
class TransducerLossConfig:
    """The pruned transducer loss. Steps are published steps, which are batches of 600 s of audio
    (`ModelConfig.warm_up` says how many of the model's own steps they are).
    """

    implementation: Literal["own", "k2"] = "own"
    """Who sums over the alignments; both give the same value and gradient."""
    topology: Topology = "regular"
    """`regular`: any number of tokens on a frame; `modified`, `constrained`: at most one."""
    prune_range: int = 5
    """Texts per frame that the joiner is asked about (published; 3, 5 and 8 differ within noise).
    """
    language_share: float = 0.25
    """Share of the text's side alone in the simple loss (published as lm_scale)."""
    simple_weight: float = 0.5
    """Weight of the simple loss after warm-up (published); it is 1 at the start."""
    pruned_weight: float = 1.0
    """Weight of the pruned loss after warm-up (published); it is 0.1 of this at the start."""
    warm_up: int = 2000
    """Published steps over which both change, in a line (published)."""
    start: int = 0
    """Published steps before the loss begins, and its warm-up; until then other heads teach the
    encoder. A transducer that begins with an encoder that hears nothing yet gets into the way of
    saying tokens early, from the text (egs/csj/RESULTS.md)."""
    delay_penalty: float = 0.0
    """Nats that each token of the streaming branch loses per frame of 40 ms that it is emitted
    later; 0.0015 to 0.01 have been tried for streaming (arXiv 2211.00490), high ones can diverge.
    """
    delay_from: int = 4000
    """Published steps before the delay penalty starts (published: 2 x warm_up)."""
    fast_emit: float = 0.0
    """Share by which the gradient of tokens of the streaming branch grows (arXiv 2010.11148);
    values in use are about 0.001 to 0.01."""
    min_gradient: float = 1e-4
    """Cells whose gradient is a smaller share of the largest of their utterance have none: this
    saves about half of the joiner's backward pass and changes its gradient by less than 1e-3. Below
    0: all cells."""

    def __post_init__(self) -> None:
        if self.prune_range < 2:
            raise ValueError(f"prune_range must be at least 2, but is {self.prune_range}")
        if not 0.0 <= self.language_share < 1.0:
            raise ValueError(f"language_share must lie in [0, 1), but is {self.language_share}")
        for name in (
            *("simple_weight", "pruned_weight", "warm_up", "start"),
            *("delay_penalty", "delay_from", "fast_emit"),
        ):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be >= 0, but is {getattr(self, name)}")
        if not self.min_gradient < 0.1:
            raise ValueError(f"min_gradient must be < 0.1, but is {self.min_gradient}")

    @property
    def moves_on(self) -> bool:
        """Whether a symbol takes a frame of its own."""
        return self.topology != "regular"

    def weights(self, step: float) -> LossWeights:
        """The weights at a published step."""
        if step < self.start:
            return LossWeights(0.0, 0.0)
        step -= self.start
        return LossWeights(
            self._grown(step, 1.0, self.simple_weight),
            self._grown(step, 0.1 * self.pruned_weight, self.pruned_weight),
        )

    def delay_penalty_at(self, step: float) -> float:
        """The delay penalty at a published step."""
        return self.delay_penalty if step >= self.delay_from else 0.0

    def _grown(self, step: float, start: float, end: float) -> float:
        return interpolate((Knot(0, start), Knot(max(1, self.warm_up), end)), step)
