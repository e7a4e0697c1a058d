"""Parameter counts of encoders and joint models, by part."""

from typing import NamedTuple

from torch import nn

from bench.joint import build_joint
from bench.workloads import Setting, build_encoder, encoder_config, model_values
from dualasr_lib.model.heads.contract import HeadSizes
from dualasr_lib.model.heads.ctc import CtcHead, CtcHeadConfig
from dualasr_lib.model.zipformer.stacks import Zipformer

__all__ = ["EncoderCounts", "encoder_counts", "joint_counts", "size"]


class EncoderCounts(NamedTuple):
    """Parameters of the streaming encoder of a configuration."""

    front_end: int
    """Convolutional front end."""
    stacks: int
    """Chunk-causal stacks."""
    encoder: int
    """Front end, stacks and the last downsampling."""
    ctc_causal: int
    """That, and a CTC head."""
    ctc_symmetric: int
    """The same with the convolutions of a full-context model."""


def size(module: nn.Module) -> int:
    """Trainable numbers of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def encoder_counts(setting: Setting, vocab_size: int) -> EncoderCounts:
    """Counts of the streaming encoder; heads have `vocab_size` tokens."""
    encoder = build_encoder(setting)
    stacks, whole = size(encoder.stacks), size(encoder)
    head = size(CtcHead(CtcHeadConfig(), HeadSizes(vocab_size, encoder.output_dim, 1)))
    streaming = encoder_config(model_values(setting)).streaming
    symmetric = whole - stacks + size(Zipformer(streaming, causal=False))
    front_end = size(encoder.subsampling)
    return EncoderCounts(front_end, stacks, whole, whole + head, symmetric + head)


def joint_counts(setting: Setting) -> dict[str, int]:
    """Parameters of a joint model by part; parts without any are left out."""
    model, _ = build_joint(setting)
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = _part(name)
        counts[part] = counts.get(part, 0) + parameter.numel()
    return counts


def _part(name: str) -> str:
    """Of a parameter's name: `encoders.full.stacks...` -> `encoders.full`, `heads.ctc.full...` ->
    `ctc.full`; front ends are one.
    """
    words = name.removeprefix("heads.").split(".")
    return "front end" if "subsampling" in words else ".".join(words[:2])
