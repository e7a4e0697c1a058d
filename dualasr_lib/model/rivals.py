"""Distillation losses to compare sp-KD with. All are means over valid frames (or tokens) of the
batch; under several ranks each takes its own.

Letters: N batch, T frames or tokens, C channels, V vocabulary.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dualasr_lib.model.pairing import Aligned, Method, Sequences, align

__all__ = ["Consistency", "HiddenMse", "LogitKl", "OverShifts", "ShiftedLogitKl"]

OverShifts = Literal["min", "mean"]


class LogitKl(Method):
    """KL(teacher || student) of output distributions, in nats per frame: in-place distillation of
    dual-mode ASR (Yu et al., ICLR 2021, arXiv 2010.06030).

    Encoders are compared by their CTC distributions, decoders by the distribution of the next
    token. A temperature flattens both distributions; the loss is then multiplied by its square,
    which keeps the size of the gradients (Hinton et al., arXiv 1503.02531).
    """

    options: ClassVar[frozenset[str]] = frozenset({"shift", "temperature"})
    on_log_probs: ClassVar[bool] = True

    def __init__(
        self, teacher_dim: int, student_dim: int, *, shift: int, temperature: float
    ) -> None:
        super().__init__(teacher_dim, student_dim)
        self.shift, self.temperature = shift, temperature

    def forward(self, teacher: Sequences, student: Sequences) -> Tensor:
        lens = (teacher.lens, student.lens)
        pair = align(teacher.said, student.said, lens, self.shift).masked()
        return pair.mean(_divergence(pair, self.temperature))


class Consistency(LogitKl):
    """Symmetric KL between CTC distributions, each side learning from the other's detached one:
    CR-CTC (Yao et al., ICLR 2025, arXiv 2410.05101) with the two modes in place of two
    augmentations.

        1/2 [KL(sg(full) || streaming) + KL(sg(streaming) || full)]

    The published loss is a sum over frames, this is their mean.
    """

    on_decoder: ClassVar[bool] = False
    symmetric: ClassVar[bool] = True


class ShiftedLogitKl(Method):
    """KL(teacher || student) of CTC distributions, where the student may come up to `max_shift`
    frames late: after Delayed-KD (Li et al., Interspeech 2025, arXiv 2505.22069).

    Teacher frame t is compared with student frames t, t + 1 ... t + max_shift, as far as they
    exist; the least of these divergences counts ("min"), or their mean. The paper's text was not at
    hand: that the minimum is taken for each frame on its own is known at second hand.
    """

    options: ClassVar[frozenset[str]] = frozenset({"max_shift", "over_shifts", "temperature"})
    on_decoder: ClassVar[bool] = False
    on_log_probs: ClassVar[bool] = True

    def __init__(
        self,
        teacher_dim: int,
        student_dim: int,
        *,
        max_shift: int,
        over_shifts: OverShifts,
        temperature: float,
    ) -> None:
        super().__init__(teacher_dim, student_dim)
        self.max_shift, self.over_shifts, self.temperature = max_shift, over_shifts, temperature

    def forward(self, teacher: Sequences, student: Sequences) -> Tensor:
        # (delays, N, T)
        kept, exists = zip(*(self._with_delay(teacher, student, lag) for lag in self._delays()))
        divergence, available = torch.stack(kept), torch.stack(exists)
        if self.over_shifts == "min":
            per_frame = divergence.masked_fill(~available, torch.inf).min(dim=0).values
        else:
            total = divergence.masked_fill(~available, 0.0).sum(dim=0)
            per_frame = total / available.sum(dim=0).clamp(min=1)
        valid = available.any(dim=0)
        return per_frame.masked_fill(~valid, 0.0).sum() / valid.sum().clamp(min=1)

    def _delays(self) -> range:
        """0 ... max_shift; a negative one says that the teacher is the side that lags."""
        sign = -1 if self.max_shift < 0 else 1
        return range(0, self.max_shift + sign, sign)

    def _with_delay(
        self, teacher: Sequences, student: Sequences, lag: int
    ) -> tuple[Tensor, Tensor]:
        """Divergences at each teacher frame (N, T), and where there is one (N, T)."""
        lens = (teacher.lens, student.lens)
        pair = align(teacher.said, student.said, lens, lag).masked()
        before, paired = pair.start, pair.valid.shape[1]
        around = (before, teacher.said.shape[1] - before - paired)
        return F.pad(_divergence(pair, self.temperature), around), F.pad(pair.valid, around)


class HiddenMse(Method):
    """Mean squared error between hidden states, over channels and frames: the layer-wise part of
    two-stage distillation for streaming transducers (arXiv 2306.15171).

    Only the last layers of both encoders, or of both decoders, are compared. Where widths differ, a
    learnt linear map takes the student's states into the teacher's space.
    """

    options: ClassVar[frozenset[str]] = frozenset({"shift"})

    def __init__(self, teacher_dim: int, student_dim: int, *, shift: int) -> None:
        super().__init__(teacher_dim, student_dim)
        self.shift = shift
        same = teacher_dim == student_dim
        self.projection = nn.Identity() if same else nn.Linear(student_dim, teacher_dim)

    def forward(self, teacher: Sequences, student: Sequences) -> Tensor:
        lens = (teacher.lens, student.lens)
        pair = align(teacher.hidden, student.hidden, lens, self.shift).masked()
        error = pair.teacher - self.projection(pair.student)
        return pair.mean(error.square().mean(dim=2))


def _divergence(pair: Aligned, temperature: float) -> Tensor:
    """KL(teacher || student) (N, T) of log-probabilities (N, T, V), both flattened by
    `temperature`, times its square.
    """
    teacher, student = pair.teacher, pair.student
    if temperature != 1.0:
        teacher = (teacher / temperature).log_softmax(dim=2)
        student = (student / temperature).log_softmax(dim=2)
    return temperature**2 * (teacher.exp() * (teacher - student)).sum(dim=2)
