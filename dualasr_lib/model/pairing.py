"""What a distillation loss compares: the states of a teacher and of a student, frame by frame.

Letters: N batch, T frames or tokens, C channels, V vocabulary.
"""

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Aligned", "Method", "Sequences", "align", "at_least_float32", "valid_frames"]


class Sequences(NamedTuple):
    """What one side offers: encoder frames with CTC outputs, or positions of a head."""

    hidden: Tensor
    """(N, T, C)."""
    log_probs: Tensor | None
    """(N, T, V) natural log-probabilities; None where nothing is said of single frames."""
    lens: Tensor
    """(N,) valid frames or positions; what lies behind them is never read."""

    def detach(self) -> "Sequences":
        """The same values, without gradients."""
        log_probs = None if self.log_probs is None else self.log_probs.detach()
        return Sequences(self.hidden.detach(), log_probs, self.lens)

    @property
    def said(self) -> Tensor:
        """The log-probabilities, which must be there (`Method.on_log_probs` is asked before)."""
        assert self.log_probs is not None
        return self.log_probs


class Method(nn.Module):
    """A distillation loss in one direction: `forward(teacher, student)` of two `Sequences` gives a
    scalar in float32 (float64 from float64).

    It is made as `Method(teacher_dim, student_dim, **options)`, the options being the fields of
    `DistillationConfig` that its class names.
    """

    options: ClassVar[frozenset[str]] = frozenset()
    """Fields that it reads, of those that not every method reads."""
    on_decoder: ClassVar[bool] = True
    """False: made for CTC outputs only."""
    on_log_probs: ClassVar[bool] = False
    """True: compares log-probabilities, not hidden states."""
    symmetric: ClassVar[bool] = False
    """True: defined as both directions together, targets detached."""

    def __init__(self, teacher_dim: int, student_dim: int, **options: Any) -> None:
        super().__init__()
        del teacher_dim, student_dim, options  # for those of its classes that need them


class Aligned(NamedTuple):
    """Teacher and student frames that belong together."""

    teacher: Tensor
    """(N, T', C)."""
    student: Tensor
    """(N, T', C')."""
    valid: Tensor
    """(N, T') bool: both frames exist."""
    start: int
    """Teacher frame that became number 0."""

    def masked(self) -> "Aligned":
        """At least float32, and 0 where not valid, so that no gradient goes there either."""
        teacher, student = (
            at_least_float32(x).masked_fill(~self.valid[:, :, None], 0.0)
            for x in (self.teacher, self.student)
        )
        return Aligned(teacher, student, self.valid, self.start)

    def mean(self, per_frame: Tensor) -> Tensor:
        """Mean of (N, T') values over the valid frames of the batch; 0 if there is none."""
        total = per_frame.masked_fill(~self.valid, 0.0).sum()
        return total / self.valid.sum().clamp(min=1)


def align(teacher: Tensor, student: Tensor, lens: tuple[Tensor, Tensor], lag: int) -> Aligned:
    """Pairs frame t of `teacher` (N, T, C) with frame t + lag of `student` (N, T, C').

        lag = 2     teacher  a b c d e        lag = -1    teacher    a b c d e
                    student  v w x y z                    student  v w x y z
                    pairs    (a, x) (b, y) (c, z)         pairs    (b, v) (c, w) (d, x) (e, y)

    Args:
        lens: (N,) valid frames of teacher and student.
    """
    start = min(max(0, -lag), teacher.shape[1])
    end = max(start, min(teacher.shape[1], student.shape[1] - lag))
    frames = torch.arange(start, end, device=teacher.device)
    valid = frames[None, :] < torch.minimum(lens[0], lens[1] - lag)[:, None]
    return Aligned(teacher[:, start:end], student[:, start + lag : end + lag], valid, start)


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def valid_frames(lens: Tensor, size: int) -> Tensor:
    """(N,) lengths -> (N, size) bool."""
    return torch.arange(size, device=lens.device)[None, :] < lens[:, None]
