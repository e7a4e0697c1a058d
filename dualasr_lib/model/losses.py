"""What training minimises: the terms of the loss by head and branch, and their weights.

    L = sum over branches b of w_b [sum over its heads h of a_h L_h(b)]
        + c_enc L_kd(h_f -> h_s) + sum over heads of both c_h L_kd(states of h)

after arXiv 2405.13514. The losses of heads are sums over the batch divided by its number of tokens
(the end counts as one), so that `a` weighs like against like. A model of one branch has the terms
of that branch only.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from dualasr_lib.model.distillation import DistillationConfig, Distilled
from dualasr_lib.model.heads.registry import check_heads
from dualasr_lib.model.model_config import Branch

__all__ = ["LossConfig", "Losses", "total_loss"]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the terms of the training loss; those of what is not there are unused."""

    MOVED: ClassVar[Mapping[str, str]] = {
        "ctc": "said by head: [loss.heads] ctc = 0.3, attention = 0.7 (the former 1 - ctc)"
    }

    streaming: float = 1.0
    """w_s, weight of the streaming branch."""
    full: float = 1.0
    """w_f, weight of the full-context branch."""
    heads: Mapping[str, float] = field(
        default_factory=lambda: {"ctc": 0.3, "attention": 0.7, "transducer": 1.0}
    )
    """a, weight of each head in its branches, by name."""
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    """The distillation terms."""

    def __post_init__(self) -> None:
        check_heads(self.heads, "heads")
        check_heads(self.distillation.head_weights, "distillation.head_weights")
        for name, weight in self.heads.items():
            if not 0.0 <= weight < math.inf:
                raise ValueError(f"weights of heads must be >= 0, but heads.{name} is {weight}")


class Losses(NamedTuple):
    """The terms of the loss before weighting, scalars."""

    heads: Mapping[str, Mapping[Branch, Tensor]]
    """Head name -> branch -> sum over the batch of its negative log-likelihoods, nats."""
    distilled: Distilled | None
    """Between the branches; None where there is only one."""
    num_tokens: Tensor
    """Tokens of the batch, each text's end included."""
    impossible: Tensor
    """(N,) bool, True for utterances that some head has no alignment for; there they count 0."""

    @staticmethod
    def summed(batches: Sequence["Losses"]) -> "Losses":
        """The heads' losses of several batches (at least one) together, without distillation."""
        first = batches[0]
        return Losses(
            heads={
                head: {
                    b: torch.stack([batch.heads[head][b] for batch in batches]).sum() for b in mine
                }
                for head, mine in first.heads.items()
            },
            distilled=None,
            num_tokens=torch.stack([batch.num_tokens for batch in batches]).sum(),
            impossible=torch.cat([batch.impossible for batch in batches]),
        )

    def parts(self, config: LossConfig) -> dict[str, Tensor]:
        """What the loss to differentiate is the sum of: a part per branch ("streaming", "full"),
        and "distillation_encoder", "distillation_<head>" where there are two.
        """
        weights: dict[Branch, float] = {"streaming": config.streaming, "full": config.full}
        terms: dict[Branch, Tensor] = {}
        for head, losses in self.heads.items():
            for branch, loss in losses.items():
                term = config.heads[head] * loss
                terms[branch] = terms[branch] + term if branch in terms else term
        parts = {
            str(branch): weight * terms[branch] / self.num_tokens
            for branch, weight in weights.items()
            if branch in terms
        }
        if self.distilled is not None:
            distillation = config.distillation
            parts["distillation_encoder"] = distillation.encoder_weight * self.distilled.encoder
            for head, loss in self.distilled.heads.items():
                parts[f"distillation_{head}"] = distillation.head_weights.get(head, 0.0) * loss
        return parts


def total_loss(parts: Mapping[str, Tensor]) -> Tensor:
    """The loss to differentiate, from `Losses.parts`; at least float32."""
    start = next(iter(parts.values())).new_zeros((), dtype=torch.float32)
    return sum(parts.values(), start)
