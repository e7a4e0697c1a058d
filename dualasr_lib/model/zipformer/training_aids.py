"""Which of Zipformer's training-time aids stand where: one place for the published settings.

Regularisers (`regularise`) and drops (`masking`) with the ranges of arXiv 2310.11230's public
recipe. Their schedules count published steps, which are batches of 600 s of audio; the model maps
its own steps to them (`ModelConfig.warm_up`). Nothing of this acts in evaluation, and nothing of it
is in a checkpoint. Left out of what is published: straight-through bypasses, whose published rate
is 0.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from dualasr_lib.model.zipformer.regularise import Balancer, Limits, Whiten
from dualasr_lib.model.zipformer.scheduled import Scheduled

__all__ = ["PUBLISHED_WARM_UP", "Aids", "FrontAids", "SkipRates"]

PUBLISHED_WARM_UP = 20000
_MOST_DROPOUT = 0.5


@dataclass(frozen=True, kw_only=True)
class FrontAids:
    """Which of the published aids the front end has, each of them by itself.

    AIDS.md has every place, published and ours; egs/csj/RESULTS.md what was measured.
    """

    identity_start: bool = True
    """The last layer of the ConvNeXt block starts 100 times smaller: the block is an identity."""
    scale_gradient: bool = True
    """What arrives at the first convolution is 0.2 times its gradient."""
    balance_convolutions: bool = True
    """Balancers behind the three convolutions."""
    balance_block: bool = True
    """Balancers of the block's hidden layer and of its output."""
    drop_block: bool = True
    """The block is left out for an utterance with probability 0.2, which falls to 0.015."""
    whiten_block: bool = True
    """Whitening of the block's output."""
    whiten_output: bool = True
    """Whitening of the front end's output."""
    early_dropout: bool = True
    """Dropout starts three times higher."""


class Aids(NamedTuple):
    """Makes aids, or does without them."""

    enabled: bool
    """False: every aid is an identity or never drops anything."""

    def schedule(self, *knots: tuple[float, float]) -> Scheduled:
        """A schedule given in published steps."""
        return Scheduled(*knots, saved=False)

    def rate(self, *knots: tuple[float, float]) -> Scheduled:
        """The rate of a drop; 0 without aids."""
        return self.schedule(*knots) if self.enabled else Scheduled((0, 0.0), saved=False)

    def dropout(self, final: float) -> Scheduled:
        """Dropout that falls from three times its final probability to it, as published (0.3 to
        0.1)."""
        if not self.enabled:
            return self.schedule((0, final))
        first = min(3.0 * final, max(final, _MOST_DROPOUT))
        return self.schedule((0, first), (PUBLISHED_WARM_UP, final))

    def whiten(
        self, groups: int, limit: float, growth: float = 2.0, grad_scale: float = 0.01
    ) -> nn.Module:
        """A `Whiten` whose limit grows by the factor `growth` during the warm-up."""
        if not self.enabled:
            return nn.Identity()
        limits = self.schedule((0, limit), (PUBLISHED_WARM_UP, limit * growth))
        return Whiten(groups, limits, prob=0.1, grad_scale=grad_scale)

    def balance(
        self,
        channels: int,
        positive: Limits,
        absolute: Limits,
        *,
        channel_dim: int = -1,
        origin: float = 0.0,
        prob: float | None = None,
    ) -> nn.Module:
        """A `Balancer` with ranges of positive share and absolute value of each channel."""
        if not self.enabled:
            return nn.Identity()
        usual = self.schedule((0, 0.5), (8000, 0.125))
        return Balancer(
            channels,
            channel_dim,
            positive=positive,
            absolute=absolute,
            prob=usual if prob is None else prob,
            origin=origin,
        )


class SkipRates(nn.Module):
    """How often parts of a layer are dropped for an utterance."""

    def __init__(self, aids: Aids) -> None:
        super().__init__()
        self.attention = aids.rate((0, 0.2), (4000, 0.05), (16000, 0.0))
        self.convolution = aids.rate((0, 0.2), (4000, 0.05), (16000, 0.0))
        self.feedforward = aids.rate((0, 0.1), (4000, 0.01), (50000, 0.0))
        self.constant_attention = aids.rate((0, 0.25), (4000, 0.025))
        self.positions = aids.rate((0, 0.5), (4000, 0.0))
