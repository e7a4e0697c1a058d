"""What a run begins with instead of random weights: those of a trained model, as far as they fit.

A tensor whose name and shape fit is taken, the rest starts anew and is named, folded by prefix.
Only weights are taken: optimiser, averages, counters and position are those of a new run. Left
out: reading files, and what makes two vocabularies the same.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dualasr_lib.core.files import file_hash
from dualasr_lib.training.fit_config import InitialConfig
from dualasr_lib.training.folding import fold
from dualasr_lib.training.freezing import check_prefixes, is_under

__all__ = ["Taken", "recorded", "resumed", "take"]


class Taken(NamedTuple):
    """What has become of a model's tensors."""

    anew: tuple[str, ...]
    """Names of the modules of which nothing was taken; of several inside each other the outer."""
    report: tuple[str, ...]
    """Lines for people."""


@torch.no_grad()
def take(
    model: nn.Module, weights: Mapping[str, Tensor], anew: Sequence[str], reasons: Mapping[str, str]
) -> Taken:
    """Copies the tensors of `weights` into the parameters and buffers of `model` that fit.

    Args:
        anew: prefixes of names that are not to be taken.
        reasons: prefix of names that are not to be taken -> why.

    Raises:
        ValueError: a prefix of `anew` is no name, or nothing fits.
    """
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    check_prefixes("initial.anew", anew, list(own))
    reasons = {**dict.fromkeys(anew, "as asked for"), **reasons}
    left: dict[str, str] = {}
    for name, value in own.items():
        reason = _reason(name, value, weights, reasons)
        if reason:
            left[name] = reason
        else:
            value.copy_(weights[name])
    if len(left) == len(own):
        first = next(iter(left.items()))
        raise ValueError(f"none of its {len(weights)} tensors fits this model ({': '.join(first)})")
    modules = dict(model.named_modules())
    whole = fold(left, own, limit=len(own))
    return Taken(
        anew=tuple(name for name, its in whole.items() if name in modules and its.is_whole),
        report=(_summary(own, left), *_named(left, own, weights)),
    )


def recorded(config: InitialConfig) -> InitialConfig:
    """As checkpoints have it: with what its file holds, and of its path the name alone. They
    travel, and so do bundles of them; the folders of a machine do not.

    Raises:
        ValueError: there is no such file, or it has another hash.
    """
    path = Path(config.path)
    if path.is_dir():
        raise ValueError(f"initial weights: {path} must be a bundle or checkpoint, but is a folder")
    if not path.is_file():
        raise ValueError(f"initial weights: {path} does not exist")
    found = file_hash(path)
    if config.hash not in ("", found):
        raise ValueError(
            f"initial weights: {path} must have the hash {config.hash} (initial.hash), but has "
            f"{found}"
        )
    return replace(config, path=path.name, hash=found)


def resumed(saved: InitialConfig, own: InitialConfig) -> InitialConfig:
    """That of a run that goes on: what it began with is past, and stays.

    Raises:
        ValueError: `own` asks for other weights than it began with.
    """
    if own.path and not _is_same(saved, own):
        began = f"those of {saved.path} (hash {saved.hash})" if saved.path else "random weights"
        raise ValueError(
            f"this run began with {began}, not with those of {own.path}: leave out --init-from "
            "(initial.path) to go on, or train in another folder"
        )
    return replace(saved, warm_up_done=own.warm_up_done)


def _reason(
    name: str, value: Tensor, weights: Mapping[str, Tensor], reasons: Mapping[str, str]
) -> str:
    """Why a tensor is not taken; empty: it is."""
    for prefix, reason in reasons.items():
        if is_under(name, [prefix]):
            return reason
    if name not in weights:
        return "not in the file"
    return "" if weights[name].shape == value.shape else "another shape"


def _summary(own: Mapping[str, Tensor], left: Collection[str]) -> str:
    taken = [value.numel() for name, value in own.items() if name not in left]
    total = sum(value.numel() for value in own.values())
    values = f"{sum(taken) / 1e6:.1f} of {total / 1e6:.1f} M values"
    return f"took {len(taken)} of {len(own)} tensors, {values}"


def _named(
    left: Mapping[str, str], own: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> list[str]:
    lines = []
    for prefix, its in fold(left, own).items():
        mine = (reason for name, reason in left.items() if is_under(name, [prefix]))
        lines.append(f"starts anew: {prefix} ({its}): {', '.join(dict.fromkeys(mine))}")
    unused = [
        name for name, value in weights.items() if name not in own and value.is_floating_point()
    ]
    return lines + [f"not used: {p} ({its})" for p, its in fold(unused, list(weights)).items()]


def _is_same(saved: InitialConfig, own: InitialConfig) -> bool:
    path = Path(own.path)
    if path.is_file():
        return file_hash(path) == saved.hash
    return path.name == Path(saved.path).name  # it is gone, and nobody needs it any more
