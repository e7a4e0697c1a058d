"""Parameter counts of encoders and joint models, by part, beside the published sizes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from torch import nn

from bench.joint import build_joint
from bench.workloads import SMALL, Setting, build_encoder, encoder_config, model_values
from dualasr_lib.model.heads.contract import HeadSizes
from dualasr_lib.model.heads.ctc import CtcHead, CtcHeadConfig
from dualasr_lib.model.joint import BRANCHES
from dualasr_lib.model.zipformer.stacks import Zipformer

__all__ = [
    "PUBLISHED",
    "STEPS",
    "EncoderCounts",
    "encoder_counts",
    "encoder_lines",
    "has_both_branches",
    "joint_counts",
    "joint_lines",
    "size",
    "step_lines",
    "total",
]

PUBLISHED = {
    "small": {"encoder": SMALL, "ctc_symmetric": 22.1e6},
    "medium": {"ctc_symmetric": 64.3e6},
    "large": {"ctc_symmetric": 147.0e6},
}
"""Name of the file -> published parameters of what `EncoderCounts` calls so."""
STEPS: dict[str, tuple[str, ...]] = {
    "joint": (),
    "streaming alone": ('model.branches=["streaming"]',),
    "full alone": ('model.branches=["full"]',),
    "shared decoder": ('model.heads.shared=["ctc", "attention", "transducer"]',),
}
"""What standalone_streaming.toml, standalone_full.toml and shared_decoder.toml change."""
_WHAT = {
    "encoder": "streaming encoder, no head",
    "ctc_causal": "with CTC head, V = {}",
    "ctc_symmetric": "full-context convolutions, CTC head, V = {}",
}


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


def encoder_lines(name: str, counts: EncoderCounts, vocab_size: int) -> list[tuple[str, ...]]:
    """Lines of the table of encoders; the heads of `counts` have `vocab_size` tokens."""
    published = PUBLISHED.get(name.rpartition("/")[2], {})
    lines: list[tuple[str, ...]] = []
    for key, what in _WHAT.items():
        count, known = getattr(counts, key), published.get(key)
        compared = ("", "")
        if known is not None:
            compared = (f"{known / 1e6:.2f}", f"{100.0 * (count / known - 1.0):+.2f}")
        lines.append((name, what.format(vocab_size), f"{count / 1e6:.3f}", *compared))
    return lines


def joint_lines(counts: Mapping[str, Mapping[str, int]]) -> list[tuple[str, ...]]:
    """The table of joint models: a line per part, a column per configuration, millions."""
    parts = list(dict.fromkeys(part for count in counts.values() for part in count))
    lines = [("part, millions", *counts)]
    for part in parts:
        found = (count.get(part, 0) for count in counts.values())
        lines.append((part, *(f"{number / 1e6:.3f}" if number else "-" for number in found)))
    totals = (sum(count.values()) for count in counts.values())
    return [*lines, ("total", *(f"{number / 1e6:.3f}" for number in totals))]


def has_both_branches(setting: Setting) -> bool:
    """Whether a configuration has two branches, which steps take apart."""
    return {"streaming", "full"} <= {*model_values(setting)["model"].get("branches", BRANCHES)}


def total(setting: Setting, step: str) -> int:
    """Parameters of all parts together, of a step of `STEPS`."""
    changes = (*setting.overrides, *STEPS[step])
    return sum(joint_counts(replace(setting, overrides=changes)).values())


def step_lines(settings: Mapping[str, Setting]) -> list[tuple[str, ...]]:
    """A line per configuration of two branches: parameters of the model of each step, millions."""
    lines = [("configuration", *STEPS)]
    for name, setting in settings.items():
        lines.append((name, *(f"{total(setting, step) / 1e6:.1f}" for step in STEPS)))
    return lines


def _part(name: str) -> str:
    """Of a parameter's name: `encoders.full.stacks...` -> `encoders.full`, `heads.ctc.full...` ->
    `ctc.full`; front ends are one.
    """
    words = name.removeprefix("heads.").split(".")
    return "front end" if "subsampling" in words else ".".join(words[:2])
