"""Similarity-preserving knowledge distillation (Tung & Mori, ICCV 2019, arXiv 1907.09682) for
sequences.

For activations A (b, d) of b items: G = A A^T, each row divided by its L2 norm, and
L = ||G_teacher - G_student||_F^2 / b^2. Rows have unit norm, so L <= 4 / b and useful weights are
large.
Items are the utterances of a batch (masked mean over time) or the valid frames of one utterance.

Letters: N batch, T frames or tokens, C channels, b items.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["DistillationConfig", "similarity", "similarity_loss"]


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """Which similarities are compared, and how strongly."""

    items: Literal["utterance", "frame"] = "utterance"
    """Rows of the similarity matrix."""
    encoder_weight: float = 0.0
    """Weight of the loss between the encoders' outputs; 0 = off."""
    decoder_weight: float = 0.0
    """Weight of the loss between the attention decoders' states; 0 = off."""
    detach_teacher: bool = True
    """The full-context branch teaches and is not changed by this loss."""
    centre: bool = False
    """Subtract the mean over the items first."""
    warm_up: int = 0
    """Optimiser steps before distillation starts."""


def similarity(items: Tensor, valid: Tensor, centre: bool) -> Tensor:
    """Row-normalised Gram matrices of items (B, b, C), valid (B, b) bool -> (B, b, b) float32.

    Rows and columns of invalid items are zero.
    """
    x = items.float().masked_fill(~valid[:, :, None], 0.0)
    if centre:
        count = valid.sum(dim=1).clamp(min=1)[:, None, None]
        mean = x.sum(dim=1, keepdim=True) / count
        x = (x - mean).masked_fill(~valid[:, :, None], 0.0)
    gram = x @ x.transpose(1, 2)
    return gram / gram.square().sum(dim=2, keepdim=True).clamp(min=1e-20).sqrt()


def similarity_loss(
    teacher: Tensor, student: Tensor, lens: Tensor, config: DistillationConfig
) -> Tensor:
    """The sp-KD loss, a scalar, of teacher and student states (N, T, C or C') with lens (N,) valid.

    With `frame` items the losses of the utterances are averaged. Computed in float32 whatever
    autocast says; a single item (b = 1) gives 0.
    """
    with torch.autocast(teacher.device.type, enabled=False):
        teacher = teacher.detach() if config.detach_teacher else teacher
        valid = torch.arange(teacher.shape[1], device=teacher.device)[None, :] < lens[:, None]
        if config.items == "utterance":
            teacher, student = (_mean_over_time(x, valid)[None] for x in (teacher, student))
            valid = (lens > 0)[None]
        wanted = similarity(teacher, valid, config.centre)
        got = similarity(student, valid, config.centre)
        count = valid.sum(dim=1).clamp(min=1)
        losses = (wanted - got).square().sum(dim=(1, 2)) / count.square()
        return losses.mean()


def _mean_over_time(x: Tensor, valid: Tensor) -> Tensor:
    """(N, T, C) -> (N, C), mean over the valid frames."""
    total = x.float().masked_fill(~valid[:, :, None], 0.0).sum(dim=1)
    return total / valid.sum(dim=1).clamp(min=1)[:, None]
