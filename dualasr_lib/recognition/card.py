"""What a bundle says of itself to people: data, errors with intervals, limits; and all of it on one
screen. Imports nothing heavy.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dualasr_lib.core.program import what_is_wrong
from dualasr_lib.core.table import aligned
from dualasr_lib.metrics.units import UNITS
from dualasr_lib.recognition.bundle import read_contents
from dualasr_lib.recognition.naming import without_model_parts

if TYPE_CHECKING:
    from dualasr_lib.data.folder import DataFolder

__all__ = ["data_card", "describe_bundle", "results_card"]

_LOG = logging.getLogger(__name__)

_NOT_SAID = "nothing was said"


def data_card(folder: "DataFolder") -> dict[str, Any]:
    """What a model was trained on."""
    return {
        "corpus": folder.corpus,
        "language": folder.language,
        "normaliser": folder.normaliser,
        "tokens": f"{folder.tokens.vocab_size} {folder.tokens.kind}",
        "splits": {split.name: split.use for split in folder.splits},
    }


def results_card(exp_dir: Path, weights: Collection[str], data: str = "") -> list[dict[str, Any]]:
    """The errors that EXP/decode has of the model with these weights; others are counted.

    Args:
        weights: their fingerprints.
        data: what the names of its splits begin with in the card.

    Raises:
        ValueError: a summary is damaged.
    """
    from dualasr_lib.decoding.results import read_summary  # showing a card needs no numpy
    from dualasr_lib.decoding.summary import main_unit

    found, others = [], 0
    for path in sorted((exp_dir / "decode").glob("*/summary-*.json")):
        summary = read_summary(path)
        try:
            if summary["params"].get("weights") not in weights:
                others += 1
                continue
            unit = main_unit(summary)
            system = "-".join(summary[key] for key in ("branch", "method", "variant"))
            result = without_model_parts(system.rstrip("-"))
            found.append({
                "split": f"{data}{summary['split']}",
                "branch": summary["branch"],
                "method": summary["method"],
                "variant": "-".join(result.variant),
                "unit": unit.name,
                "utterances": summary["num_utterances"],
                "rate": summary[unit.rate],
                "interval": summary[f"{unit.rate}_ci95"],
            })  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
            raise ValueError(
                f"{path} must be a summary of decode.py: {what_is_wrong(error)}"
            ) from None
    if others:
        _LOG.info("%d summaries of %s/decode are of other weights: left out", others, exp_dir)
    return found


def describe_bundle(path: Path) -> str:
    """A bundle on one screen, read from its file.

    Raises:
        ContainerError: no such file, none, a damaged or a newer one.
        ValueError: a card that another program wrote.
    """
    contents = read_contents(path)
    plain = contents.plain
    try:
        lines = [(name, value) for name, value in _lines(plain, contents.language_files) if value]
        table = _results(plain["card"].get("results", ()))
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise ValueError(
            f"{path} has a card that this program cannot read: {what_is_wrong(error)}"
        ) from None
    size = path.stat().st_size / 1e6
    kind = f"{contents.num_weights / 1e6:.2f} M numbers, {'/'.join(contents.dtypes)}, {size:.1f} MB"
    return "\n".join((f"{path.name}: {kind}", aligned(lines), *table))


def _lines(plain: Mapping[str, Any], files: Sequence[str]) -> Iterable[tuple[str, str]]:
    """(name, what is said of it)."""
    config, card = plain["config"], plain["card"]
    model, chunk, features = (config.get(name, {}) for name in ("model", "chunk", "features"))
    data = card.get("data", {})
    yield "weights", plain["source"]
    yield "branches", f"{' and '.join(model.get('branches', ()))}, {model.get('integration', '')}"
    yield "chunk", f"{chunk.get('ms')} ms, left context {chunk.get('left_ms')} ms"
    yield "features", f"{features.get('num_mel_bins')} bins, {features.get('sample_rate')} Hz"
    yield "tokens", data.get("tokens", "")
    yield "scales", "; ".join(_scales(plain["scales"])) or "none"
    yield "n-grams", ", ".join(files) or "none"
    yield "endpoints", ", ".join(f"{k}={v:g}" for k, v in plain["endpoint"].items()) or "usual"
    used = data.get("splits", {})
    splits = ", ".join(f"{name} ({use})" for name, use in used.items())
    said = (plain["corpus"], plain["language"], f"texts {plain['normaliser']}", splits)
    yield "data", "; ".join(part for part in said if part)
    yield "licence", plain["licence"] or f"{_NOT_SAID}, so nothing is allowed"
    yield "limits", " ".join(str(card.get("limits") or _NOT_SAID).split())
    if not card.get("results"):
        yield "errors", "none were measured with these weights"


def _scales(kept: Mapping[str, Any]) -> Iterable[str]:
    for name, each in kept.items():
        values = ", ".join(f"{score} {weight:g}" for score, weight in each["scales"].items())
        yield f"{name}: {values}"


def _results(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line per system, a column per split."""
    if not rows:
        return []
    splits = list(dict.fromkeys(row["split"] for row in rows))
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        unit = UNITS[row["unit"]]
        system = (row["branch"], row["method"], row["variant"], f"{unit.label} %")
        cells.setdefault(system, {})[row["split"]] = _percent(row["rate"], row["interval"])
    head = ("branch", "method", "options", "errors", *splits)
    lines = [(*system, *(found.get(split, "-") for split in splits))
             for system, found in cells.items()]  # fmt: skip
    return ["", aligned([head, *lines]), "errors with 95 % intervals"]


def _percent(rate: float | None, interval: Sequence[float] | None) -> str:
    if rate is None or interval is None:
        return "-"
    return f"{100 * rate:.2f} ({100 * interval[0]:.2f}-{100 * interval[1]:.2f})"
