"""Checkpoints of before heads were a mapping: their configuration and weights under today's names,
so that they can still be used. Training is not resumed from them.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["current_config", "current_weights"]

_PREFIXES = (
    ("ctc.{}.", "heads.ctc.{}."),
    ("decoders.{}.", "heads.attention.{}.decoder."),
    ("distiller.decoder.", "distiller.heads.attention."),
)


def current_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as it is said now; one of today's stays as it is."""
    model, loss = dict(config.get("model", {})), dict(config.get("loss", {}))
    heads = dict(model.get("heads", {}))
    if "decoder" in model:
        heads["attention"] = model.pop("decoder")
    if "ctc_dropout" in model:
        heads["ctc"] = {"dropout": model.pop("ctc_dropout")}
    if model.pop("decoder_sharing", "separate") == "shared":
        heads["shared"] = ["ctc", "attention"]
    if "ctc" in loss:
        share = loss.pop("ctc")
        loss["heads"] = {"ctc": share, "attention": 1.0 - share}
    distillation = dict(loss.get("distillation", {}))
    if "decoder_weight" in distillation:
        distillation["head_weights"] = {"attention": distillation.pop("decoder_weight")}
    changes = (("distillation", distillation), ("heads", loss.get("heads")))
    loss |= {name: value for name, value in changes if value}
    sections = {"model": {**model, "heads": heads} if heads else model, "loss": loss}
    return {**config, **{name: section for name, section in sections.items() if section}}


def current_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under today's names."""
    return {_renamed(name): value for name, value in weights.items()}


def _renamed(name: str) -> str:
    for old, new in _PREFIXES:
        for owner in ("streaming", "full", "shared"):
            prefix = old.format(owner)
            if name.startswith(prefix):
                return new.format(owner) + name.removeprefix(prefix)
    return name
