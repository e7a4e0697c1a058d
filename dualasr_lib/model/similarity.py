"""Similarity-preserving knowledge distillation (Tung & Mori, ICCV 2019, arXiv 1907.09682) for
sequences.

For activations A (b, d) of b items: G = A A^T, each row divided by its L2 norm, and
L = ||G_teacher - G_student||_F^2 / b^2. Rows have unit norm, so L <= 4 / b and useful weights are
large (1 ... 3000). Teacher and student may have different widths.
Items are the utterances of a batch (mean over their valid frames), or the valid frames of one
utterance (after the intra-utterance Gram matrices of arXiv 2309.08144).

Letters: N batch, T frames or tokens, C channels, B matrices, b items.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from dualasr_lib.model.all_ranks import rows_of_all_ranks
from dualasr_lib.model.pairing import Method, Sequences, align, at_least_float32, valid_frames

__all__ = ["Items", "SimilarityPreserving", "mean_over_time", "similarity", "similarity_loss"]

Items = Literal["utterance", "frame"]


class SimilarityPreserving(Method):
    """sp-KD between hidden states.

    `utterance` items of all ranks are compared with each other (`gather`), so that N ranks see the
    matrix that one would see with the joined batch; in evaluation, where ranks work on their own,
    nothing is gathered. `frame` items need no gathering: a matrix never leaves its utterance.
    """

    options: ClassVar[frozenset[str]] = frozenset({"items", "centre", "shift", "gather"})

    def __init__(
        self,
        teacher_dim: int,
        student_dim: int,
        *,
        items: Items,
        centre: bool,
        shift: int,
        gather: bool,
    ) -> None:
        super().__init__(teacher_dim, student_dim)
        self.items, self.centre, self.shift, self.gather = items, centre, shift, gather

    def forward(self, teacher: Sequences, student: Sequences) -> Tensor:
        if self.items == "utterance":
            return self._between_utterances(teacher, student)
        pair = align(teacher.hidden, student.hidden, (teacher.lens, student.lens), self.shift)
        return similarity_loss(pair.teacher, pair.student, pair.valid, self.centre)

    def _between_utterances(self, teacher: Sequences, student: Sequences) -> Tensor:
        pooled = [mean_over_time(side.hidden, side.lens) for side in (teacher, student)]
        valid = torch.minimum(teacher.lens, student.lens) > 0
        if self.gather and self.training:
            together = torch.cat([*pooled, valid[:, None].to(pooled[0].dtype)], dim=1)
            widths = [pooled[0].shape[1], pooled[1].shape[1], 1]
            *pooled, flags = torch.split(rows_of_all_ranks(together), widths, dim=1)
            valid = flags[:, 0] > 0
        return similarity_loss(pooled[0][None], pooled[1][None], valid[None], self.centre)


def similarity(items: Tensor, valid: Tensor, centre: bool) -> Tensor:
    """Row-normalised Gram matrices of items (B, b, C), valid (B, b) bool -> (B, b, b), at least
    float32.

    Rows and columns of invalid items are zero, and so is the row of an item that is zero, up to
    rounding, beside the others.

    Args:
        centre: subtract the mean over the valid items first.
    """
    x = at_least_float32(items).masked_fill(~valid[:, :, None], 0.0)
    count = valid.sum(dim=1).clamp(min=1)[:, None, None]
    # No scale changes the result; unit mean square keeps float32 from over- and underflow.
    power = (x.detach().square().sum(dim=(1, 2), keepdim=True) / count).sqrt()
    x = x / power.masked_fill(power == 0.0, 1.0)
    if centre:
        x = (x - x.sum(dim=1, keepdim=True) / count).masked_fill(~valid[:, :, None], 0.0)
    zero = x.detach().square().sum(dim=2, keepdim=True) <= (16 * torch.finfo(x.dtype).eps) ** 2
    gram = x @ x.transpose(1, 2)
    norm = gram.square().sum(dim=2, keepdim=True).masked_fill(zero, 1.0).sqrt()
    return (gram / norm).masked_fill(zero, 0.0)


def similarity_loss(teacher: Tensor, student: Tensor, valid: Tensor, centre: bool) -> Tensor:
    """||G_teacher - G_student||_F^2 / b^2, averaged over the matrices that have an item.

    A single item (b = 1) gives exactly 0.

    Args:
        teacher: (B, b, C). student: (B, b, C'). valid: (B, b) bool.
    """
    difference = similarity(teacher, valid, centre) - similarity(student, valid, centre)
    count = valid.sum(dim=1)
    losses = difference.square().sum(dim=(1, 2)) / count.clamp(min=1).square()
    return losses.masked_fill(count <= 1, 0.0).sum() / (count > 0).sum().clamp(min=1)


def mean_over_time(x: Tensor, lens: Tensor) -> Tensor:
    """(N, T, C) -> (N, C), mean over the valid frames; 0 where there is none."""
    valid = valid_frames(lens, x.shape[1])[:, :, None]
    total = at_least_float32(x).masked_fill(~valid, 0.0).sum(dim=1)
    return total / lens.clamp(min=1)[:, None]
