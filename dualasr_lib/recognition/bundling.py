"""A bundle of an experiment: its weights, and all that belongs to just these weights.

Nothing is mixed: tokens, features and n-grams must be those of the model; tuned scales and results
that were made with other weights are left out, and counted.
"""

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dualasr_lib.core.config import from_options, override, to_dict
from dualasr_lib.core.program import what_is_wrong
from dualasr_lib.data.folder import DataFolder
from dualasr_lib.decoding.endpoint import EndpointConfig
from dualasr_lib.recognition.bundle import Bundle
from dualasr_lib.recognition.card import data_card, results_card
from dualasr_lib.recognition.language import load_language
from dualasr_lib.recognition.naming import without_model_parts
from dualasr_lib.recognition.origin import arpa_order
from dualasr_lib.recognition.trained_model import TrainedModel, weights_fingerprint

__all__ = ["BundleJob", "Precision", "make_bundle"]

_LOG = logging.getLogger(__name__)

Precision = Literal["float32", "float16"]


@dataclass(frozen=True, kw_only=True)
class BundleJob:
    """What goes into a bundle.

    Raises:
        ValueError: options that cannot be, or do not go together.
    """

    exp_dir: Path
    data_dir: Path
    epoch: int | None = None
    avg: int = 0
    dtype: Precision = "float32"
    """Of the weights in the file."""
    lms: tuple[Path, ...] = ()
    """n-grams (ARPA): of words with a lexicon, else of tokens."""
    lexicon: Path | None = None
    endpoint: tuple[str, ...] = ()
    """When a sentence ends: `key=value` of `EndpointConfig`."""
    results: Mapping[str, Path] = field(default_factory=dict)
    """Errors on other data: what the card calls these, and what `decode.py --out-dir` filled."""
    licence: str = ""
    limits: str = ""
    """What the model cannot do, for people."""

    def __post_init__(self) -> None:
        from_options(EndpointConfig, "--endpoint", self.endpoint)
        if self.lexicon is not None and not self.lms:
            raise ValueError("--lexicon is for n-grams of words: give them with --lm")
        names = [path.name for path in self.lms]
        if len(set(names)) < len(names):
            raise ValueError(f"n-grams must have different names, but are {', '.join(names)}")


def make_bundle(job: BundleJob) -> Bundle:
    """The bundle that a job asks for.

    Raises:
        ValueError: a file is missing or damaged, or does not belong to the model.
    """
    folder = DataFolder.read(job.data_dir)
    trained = TrainedModel.from_checkpoint(
        job.exp_dir, job.data_dir, torch.device("cpu"), job.epoch, job.avg
    )
    config = to_dict(trained.config)
    if folder.features != config["features"]:
        raise ValueError(
            f"the features of the model must be those of {job.data_dir}, {dict(folder.features)}, "
            f"but are {config['features']}"
        )
    source = trained.source if job.dtype == "float32" else f"{trained.source}, {job.dtype}"
    weights = _converted(trained.model.state_dict(), job.dtype)
    loaded = {name: v.float() if v.is_floating_point() else v for name, v in weights.items()}
    return Bundle(
        weights=weights,
        config=_without_folders(config),
        tokenizer=(job.data_dir / "lang" / "sentencepiece.model").read_bytes(),
        tokens=trained.tokenizer.tokens_txt(),
        source=source,
        corpus=folder.corpus,
        language=folder.language,
        normaliser=folder.normaliser,
        units=list(folder.units),
        endpoint=override({}, job.endpoint),
        scales=_kept(job.exp_dir / "scales", "scales", trained.fingerprint),
        calibration=_kept(job.exp_dir / "calibration", "calibration", trained.fingerprint),
        lms=_lms(job, trained),
        lexicon=None if job.lexicon is None else (job.lexicon.name, job.lexicon.read_bytes()),
        licence=job.licence,
        card={
            "data": data_card(folder),
            "results": _results(job, (trained.fingerprint, weights_fingerprint(loaded))),
            "limits": job.limits,
        },
    )


def _without_folders(plain: Any) -> Any:
    """Nested plain data, of absolute paths the last name alone: folders of the trainer's machine
    (`data.augment.noise_cuts`, `initial.path` of older checkpoints) are nobody else's.
    """
    if isinstance(plain, Mapping):
        return {key: _without_folders(value) for key, value in plain.items()}
    if isinstance(plain, (list, tuple)):
        return [_without_folders(value) for value in plain]
    is_path = isinstance(plain, str) and Path(plain).is_absolute()
    return Path(plain).name if is_path else plain


def _converted(weights: Mapping[str, Tensor], dtype: Precision) -> dict[str, Tensor]:
    """Copies, float32 as `dtype`; ValueError for a number that it cannot hold."""
    found = {}
    for name, value in weights.items():
        new = value.to(getattr(torch, dtype)) if value.dtype == torch.float32 else value
        if not bool((new.isfinite() | ~value.isfinite()).all()):
            raise ValueError(f"weight {name} has numbers that {dtype} cannot hold: use float32")
        found[name] = new.contiguous()
    return found


def _lms(job: BundleJob, trained: TrainedModel) -> dict[str, bytes]:
    """n-grams by file name; ValueError for one that does not fit, or two of one order."""
    found: dict[str, bytes] = {}
    orders: dict[int, Path] = {}
    for path in job.lms:
        load_language(trained.tokenizer, path, job.lexicon)
        found[path.name] = path.read_bytes()
        other = orders.setdefault(arpa_order(found[path.name]), path)
        if other is not path:
            raise ValueError(f"n-grams must be of different orders, but {other} and {path} are of "
                             "the same")  # fmt: skip
    return found


def _results(job: BundleJob, weights: Collection[str]) -> list[dict[str, Any]]:
    """Errors on the model's own data, then on others; ValueError where there are none of these.

    Args:
        weights: as they were trained, and as the bundle keeps them: with it data are decoded whose
            tokens are others.
    """
    found = results_card(job.exp_dir, weights)
    for name, folder in job.results.items():
        more = results_card(folder, weights, f"{name}-")
        if not more:
            raise ValueError(
                f"{folder}/decode must have results of these weights, but has none: decode with "
                f"--out-dir {folder}, or leave {name} out"
            )
        found += more
    return found


def _kept(folder: Path, what: str, weights: str) -> dict[str, dict[str, Any]]:
    """What was tuned or fitted for these weights; that of others is counted."""
    found: dict[str, dict[str, Any]] = {}
    others = 0
    for path, kept in _json_files(sorted(folder.glob("*.json"))):
        made_for = kept.get("made_for")
        if not isinstance(made_for, dict) or not isinstance(kept.get(what), dict):
            raise ValueError(f"{path} is damaged: it has no {what!r} and 'made_for'")
        if made_for.get("weights") != weights:
            others += 1
            continue
        name = without_model_parts(path.stem)
        while name.text in found:
            name = name._replace(variant=(*name.variant, "again"))
        own = {key: value for key, value in made_for.items() if key not in ("model", "weights")}
        found[name.text] = {
            **kept, "made_for": own, "branch": name.branch, "method": name.method
        }  # fmt: skip
    if others:
        _LOG.info("%d files of %s are of other weights: left out", others, folder)
    return found


def _json_files(paths: Sequence[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {what_is_wrong(error)}") from None
        if not isinstance(content, dict):
            raise ValueError(f"{path} is damaged: it holds no object")
        yield path, content
