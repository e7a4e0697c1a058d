"""Results of decoding read back: a summary, and what was recognised of each utterance."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dualasr_lib.core.config import flatten
from dualasr_lib.core.files import AnyPath
from dualasr_lib.core.program import what_is_wrong
from dualasr_lib.decoding.recogs import Recognised, read_recogs
from dualasr_lib.decoding.summary import main_unit
from dualasr_lib.metrics.alignment import align
from dualasr_lib.metrics.error_rate import ErrorCounts, count_pairs
from dualasr_lib.metrics.units import Unit

__all__ = ["Result", "differences", "read_result", "read_results", "read_summary"]

_INCIDENTAL = ("num_threads", "scales_from")  # params that say nothing of what was decoded


class Result(NamedTuple):
    """A decoded split."""

    path: Path
    summary: dict[str, Any]
    counts: dict[str, ErrorCounts]
    """Errors by utterance id."""
    refs: dict[str, str]
    """Reference texts by utterance id."""
    hyps: dict[str, str]
    """Recognised texts by utterance id."""

    @property
    def unit(self) -> Unit:
        """What errors are counted in."""
        return main_unit(self.summary)

    @property
    def system(self) -> str:
        """Branch, method, and what of its options is not default."""
        return " ".join(
            str(self.summary[key])
            for key in ("branch", "method", "variant")
            if self.summary.get(key)
        )

    @property
    def name(self) -> str:
        """Split and system."""
        return f"{self.summary.get('split', '?')} {self.system}"


def read_results(exp_dir: AnyPath) -> list[Result]:
    """All `decode/*/summary-*.json` of an experiment, in the order of names.

    Raises:
        ValueError: there is none, or one is damaged.
    """
    exp_dir = Path(exp_dir)
    paths = sorted((exp_dir / "decode").glob("*/summary-*.json"))
    if not paths:
        raise ValueError(f"no decode/*/summary-*.json in {exp_dir}: decode.py writes them")
    return [read_result(path) for path in paths]


def read_result(path: AnyPath) -> Result:
    """Reads a summary and the recogs file beside it.

    Raises:
        ValueError: a file is missing or malformed, or the two do not belong together.
    """
    path = Path(path)
    summary = read_summary(path)
    unit = main_unit(summary)
    split, num_errors = summary["split"], summary["ins"] + summary["del"] + summary["sub"]
    items = read_recogs(path.with_name(f"recogs-{split}.txt"))
    counts = {item.id: _count(item) for item in items}
    found = sum(counts.values(), ErrorCounts()).errors
    if found != num_errors or len(items) != len(counts):
        raise ValueError(
            f"recogs-{split}.txt must belong to {path}, but has {found} errors in {len(items)} "
            f"utterances of {len(counts)} ids where the summary says {num_errors} errors"
        )
    refs = {item.id: unit.join(item.ref) for item in items}
    hyps = {item.id: unit.join(item.hyp) for item in items}
    return Result(path, summary, counts, refs, hyps)


def read_summary(path: Path) -> dict[str, Any]:
    """What `summary-<split>.json` says.

    Raises:
        ValueError: it is missing, malformed or of an older version.
    """
    try:
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _ = summary["split"], summary["ins"] + summary["del"] + summary["sub"]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} must be a summary-<split>.json of decode.py: {what_is_wrong(error)}"
        ) from None
    try:
        main_unit(summary)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return summary


def differences(results: Sequence[Result]) -> list[str]:
    """In what the params of some results differ, which are to be of one system: an empty list if
    they are of one model, one set of options, one language model, the same scales and one data
    folder.
    """
    params = [_params(result.summary) for result in results]
    names = dict.fromkeys(name for each in params for name in each)
    return [
        f"{name} ({', '.join(_distinct(each.get(name) for each in params))})"
        for name in names
        if any(each.get(name) != params[0].get(name) for each in params)
    ]


def _params(summary: Mapping[str, Any]) -> dict[str, Any]:
    flat = flatten(summary.get("params", {}))
    said = {n: value for n, value in flat.items() if n.rpartition(".")[2] not in _INCIDENTAL}
    return {**said, "data folder": summary.get("data")}


def _distinct(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(map(str, values)))


def _count(item: Recognised) -> ErrorCounts:
    return count_pairs(align(item.ref, item.hyp))
