"""Distillation between the two branches: the full-context branch and the streaming branch teach
each other's encoder outputs and the states of their heads.

The default is sp-KD (`similarity.py`); `METHODS` holds its rivals (`rivals.py`), all with one
interface. Everything is computed in float32 (or more) whatever autocast says, and what lies behind
an utterance's end enters neither a value nor a gradient.

Letters: N batch, S encoder frames (25 Hz), U tokens, V vocabulary, C and D channels.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, TypeVar, get_args

import torch
from torch import Tensor, nn

from dualasr_lib.core.picture import Picture
from dualasr_lib.model.pairing import Method, Sequences, align
from dualasr_lib.model.rivals import Consistency, HiddenMse, LogitKl, OverShifts, ShiftedLogitKl
from dualasr_lib.model.similarity import (
    Items,
    SimilarityPreserving,
    mean_over_time,
    similarity,
)
from dualasr_lib.model.zipformer.scheduled import Scheduled

__all__ = [
    "METHODS",
    "BranchDims",
    "BranchView",
    "Distilled",
    "DistillationConfig",
    "Distiller",
    "Widths",
    "build_distiller",
    "similarities",
    "similarity_gaps",
    "similarity_images",
]

_Side = TypeVar("_Side")

MethodName = Literal["sp_kd", "logit_kl", "logit_kl_shifted", "mse", "consistency"]
Direction = Literal["full_to_streaming", "streaming_to_full", "both"]

METHODS: dict[MethodName, type[Method]] = {
    "sp_kd": SimilarityPreserving,
    "logit_kl": LogitKl,
    "logit_kl_shifted": ShiftedLogitKl,
    "mse": HiddenMse,
    "consistency": Consistency,
}


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """What is compared between the branches, how, and how strongly.

    A field that the method does not read must be left at its default.
    """

    MOVED: ClassVar[Mapping[str, str]] = {
        "decoder_weight": "said by head: loss.distillation.head_weights.attention"
    }

    method: MethodName = "sp_kd"
    """The loss; `METHODS` says which class, and the class where it comes from."""
    direction: Direction = "full_to_streaming"
    """Who teaches whom; "both" is the mean of the two directions."""
    encoder_weight: float = 0.0
    """Weight of the loss between the encoders' outputs; 0 = off, and not computed."""
    head_weights: Mapping[str, float] = field(default_factory=dict)
    """Weights of the losses between the states of the branches' heads, by head name ("attention":
    the decoders' states); 0 or none = off, and not computed. One of a head that has no states of
    its own, or that only one branch has, is unused."""
    detach_teacher: bool = True
    """The teacher is not changed by this loss; with "both", each direction's teacher."""
    warm_up: int = 0
    """Optimiser steps before distillation starts."""
    items: Items = "utterance"
    """sp_kd: rows of the similarity matrix, the utterances of a batch or the frames of one."""
    centre: bool = False
    """sp_kd: subtract the mean over the items first."""
    gather: bool = True
    """sp_kd with `utterance` items: those of all ranks; `frame` items need none but their own."""
    shift: int = 0
    """Encoder frames (of 40 ms) by which the streaming branch lags: frame t of the full-context
    branch belongs to frame t + shift of the streaming one, whoever teaches; frames without a
    partner are left out. Negative: it is ahead. For all that compares frames at one fixed delay;
    decoders are never shifted, their positions are those of the text."""
    max_shift: int = 2
    """logit_kl_shifted: the largest delay in encoder frames (of 40 ms) at which the streaming
    branch may follow."""
    over_shifts: OverShifts = "min"
    """logit_kl_shifted: at each frame the least divergence of all delays, or their mean."""
    temperature: float = 1.0
    """The KL losses: what log-probabilities are divided by before the softmax."""

    def __post_init__(self) -> None:
        for name in ("encoder_weight", "warm_up", "max_shift"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, but is {getattr(self, name)}")
        for head, weight in self.head_weights.items():
            if weight < 0:
                raise ValueError(f"`head_weights.{head}` must not be negative, but is {weight}")
        if self.temperature <= 0:
            raise ValueError(f"`temperature` must be positive, but is {self.temperature}")
        self._check_method()

    def _check_method(self) -> None:
        method, all_options = METHODS[self.method], set[str]()
        all_options.update(*(each.options for each in METHODS.values()))
        for each in dataclasses.fields(self):
            value, unread = getattr(self, each.name), each.name in all_options - method.options
            if unread and value != each.default:
                raise ValueError(
                    f"`{each.name}` must stay {each.default!r} with method {self.method!r}, "
                    f"which does not read it, but is {value!r}"
                )
        if self.method == "sp_kd" and self.items == "utterance" and self.shift:
            raise ValueError(
                f"`shift` must be 0 with `utterance` items, which have no frames, "
                f"but is {self.shift}"
            )
        if any(self.head_weights.values()) and not method.on_decoder:
            raise ValueError(
                f"`head_weights` must be 0 with method {self.method!r}, which compares CTC "
                f"outputs only, but are {dict(self.head_weights)}"
            )
        if method.symmetric and not (self.direction == "both" and self.detach_teacher):
            raise ValueError(
                f"method {self.method!r} must have direction 'both' and `detach_teacher`, but has "
                f"{self.direction!r} and {self.detach_teacher}"
            )


class BranchView(NamedTuple):
    """What distillation sees of one branch."""

    encoder: Sequences
    """The encoder's frames: output (N, S, C), and log-probabilities (N, S, V) of a head that speaks
    of each frame, if there is one."""
    heads: Mapping[str, Sequences]
    """By name the heads that have states of their own: "attention", U + 1 positions."""


class Widths(NamedTuple):
    """Channels of a pair of hidden states."""

    full: int
    streaming: int


class BranchDims(NamedTuple):
    """Channels of the hidden states of both branches."""

    encoder: Widths
    heads: Mapping[str, Widths]
    """Of the heads that both branches have, by name."""


class Distilled(NamedTuple):
    """The losses before weighting; scalars, at least float32."""

    encoder: Tensor
    heads: Mapping[str, Tensor]
    """By name, of all heads that could be compared."""


class Distiller(nn.Module):
    """The distillation losses of a batch; its step is told by `set_step` like any schedule's."""

    def __init__(
        self, config: DistillationConfig, encoder: nn.ModuleDict, heads: Mapping[str, nn.ModuleDict]
    ) -> None:
        """`encoder` and each of `heads` hold a `Method` for each direction; none = switched off."""
        super().__init__()
        self.config, self.encoder, self.heads = config, encoder, nn.ModuleDict(heads)
        self.started = Scheduled((config.warm_up - 1, 0.0), (config.warm_up, 1.0))

    def forward(self, full: BranchView, streaming: BranchView) -> Distilled:
        """All losses; 0, and not computed, before warm-up is over or where a weight is 0.

        Under several ranks all must call it in the same steps (see `similarity.py`).
        """
        with torch.autocast(full.encoder.hidden.device.type, enabled=False):
            return Distilled(
                self._loss(self.encoder, full.encoder, streaming.encoder),
                {
                    name: self._loss(methods, full.heads[name], streaming.heads[name])
                    for name, methods in self.heads.items()
                },
            )

    def _loss(self, methods: nn.Module, full: Sequences, streaming: Sequences) -> Tensor:
        assert isinstance(methods, nn.ModuleDict)
        if not len(methods) or self.started.now() <= 0:
            return full.hidden.new_zeros((), dtype=torch.float32)
        losses = []
        for direction, method in methods.items():
            teacher, student = _roles(direction, full, streaming)
            losses.append(
                method(teacher.detach() if self.config.detach_teacher else teacher, student)
            )
        return torch.stack(losses).mean()


def build_distiller(config: DistillationConfig, dims: BranchDims) -> Distiller:
    """The losses that `config` asks for, between branches of widths `dims`."""
    return Distiller(
        config,
        _methods(config, dims.encoder, config.shift, config.max_shift)
        if config.encoder_weight
        else nn.ModuleDict(),
        {
            name: _methods(config, widths, 0, 0)
            if config.head_weights.get(name, 0.0)
            else nn.ModuleDict()
            for name, widths in dims.heads.items()
        },
    )


def similarity_gaps(full: BranchView, streaming: BranchView) -> dict[str, Tensor]:
    """How unlike the branches' hidden states are: sp-KD losses, not centred, not shifted, whatever
    the model is trained with. 0 = the same similarities.

    Returns:
        "encoder_utterance", "encoder_frame", "<head>_utterance", "<head>_frame" -> scalar.
    """
    gaps = {}
    with torch.no_grad(), torch.autocast(full.encoder.hidden.device.type, enabled=False):
        for part, teacher, student in _sides(full, streaming):
            widths = teacher.hidden.shape[2], student.hidden.shape[2]
            for items in get_args(Items):
                loss = SimilarityPreserving(
                    *widths, items=items, centre=False, shift=0, gather=False
                )
                gaps[f"{part}_{items}"] = loss(teacher, student)
    return gaps


def similarity_images(
    full: BranchView, streaming: BranchView, config: DistillationConfig
) -> dict[str, Picture]:
    """Row-normalised Gram matrices of teacher and student, to look at, whatever the method.

    With `utterance` items those of the batch, of this rank only; with `frame` items those of its
    first utterance, the frames paired as the loss pairs them. Both matrices of a pair have the
    same colours, from minus to plus their largest magnitude, so that the two can be compared. Where
    there is no item, there is no image. With direction "both" the full-context branch is called
    the teacher.

    Returns:
        "similarity/encoder_teacher", "..._student", "similarity/<head>_..." -> (b, b) float32.
    """
    direction = "full_to_streaming" if config.direction == "both" else config.direction
    teacher, student = _roles(direction, full, streaming)
    lag = _lag(direction, config.shift) if config.items == "frame" else 0
    with torch.no_grad(), torch.autocast(full.encoder.hidden.device.type, enabled=False):
        pairs = {
            part: similarities(theirs, its, lag if part == "encoder" else 0, config)
            for part, theirs, its in _sides(teacher, student)
        }
        return {
            f"similarity/{part}_{role}": _picture(f"{part}, {role}", matrix, largest, config.items)
            for part, pair in pairs.items()
            if pair.numel()
            for largest in [float(pair.abs().max().clamp(min=1e-20))]
            for role, matrix in zip(("teacher", "student"), pair.float())
        }


def _picture(whose: str, matrix: Tensor, largest: float, items: Items) -> Picture:
    item, data = "utterance (place in the batch)", "utterances of the largest batch"
    if items == "frame":
        item = "encoder frame (40 ms)"
        if not whose.startswith("encoder"):
            item = "state of the head (place in the text)"
        data = "its first utterance"
    return Picture(
        values=matrix,
        title=f"similarity of {data}\n{whose}",
        x=item,
        y=item,
        colours="similarity (dot product, rows of unit norm)",
        low=-largest,
        high=largest,
    )


def similarities(
    teacher: Sequences, student: Sequences, lag: int, config: DistillationConfig
) -> Tensor:
    """(2, b, b) similarities of teacher and student, over valid items only; with `frame` items
    those of the first utterance.

    Args:
        lag: frames by which the student lags; only with `frame` items.
    """
    if config.items == "frame":
        lens = (teacher.lens[:1], student.lens[:1])
        pair = align(teacher.hidden[:1], student.hidden[:1], lens, lag)
        items, valid = [pair.teacher[0], pair.student[0]], pair.valid[0]
    else:
        items = [mean_over_time(side.hidden, side.lens) for side in (teacher, student)]
        valid = torch.minimum(teacher.lens, student.lens) > 0
    kept = valid[valid][None]
    return torch.cat([similarity(x[valid][None], kept, config.centre) for x in items])


def _sides(teacher: BranchView, student: BranchView) -> Iterator[tuple[str, Sequences, Sequences]]:
    """Name, teacher's and student's side of the encoders and of each head that both have."""
    yield "encoder", teacher.encoder, student.encoder
    for name, its in teacher.heads.items():
        if name in student.heads:
            yield name, its, student.heads[name]


def _methods(
    config: DistillationConfig, widths: Widths, shift: int, max_shift: int
) -> nn.ModuleDict:
    """Direction -> method, for one part of the branches."""
    cls = METHODS[config.method]
    wanted = ("full_to_streaming", "streaming_to_full")
    methods = nn.ModuleDict()
    for direction in wanted if config.direction == "both" else (config.direction,):
        options = {name: getattr(config, name) for name in cls.options}
        options |= {
            name: _lag(direction, value)
            for name, value in (("shift", shift), ("max_shift", max_shift))
            if name in options
        }
        teacher_dim, student_dim = _roles(direction, widths.full, widths.streaming)
        methods[direction] = cls(teacher_dim, student_dim, **options)
    return methods


def _roles(direction: str, full: _Side, streaming: _Side) -> tuple[_Side, _Side]:
    """(teacher, student)."""
    return (full, streaming) if direction == "full_to_streaming" else (streaming, full)


def _lag(direction: str, shift: int) -> int:
    """Frames by which the student lags its teacher, if the streaming branch lags by `shift`."""
    return shift if direction == "full_to_streaming" else -shift
