"""Writes what a decoding run found: `recogs-<split>.txt`, `errs-<split>.txt`,
`summary-<split>.json`.

Each file appears whole or not at all (temporary name in the same folder, then renamed), the
summary last: where it exists, the others do too. Utterances are written in the order of their ids.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from dualasr_lib.core.files import AnyPath, write_atomically
from dualasr_lib.decoding.errs import format_errs
from dualasr_lib.decoding.hypothesis import Hypothesis, ScoredText
from dualasr_lib.decoding.offline import Detokenise
from dualasr_lib.decoding.recogs import Recognised, format_recogs
from dualasr_lib.metrics.units import UNITS

__all__ = ["ResultFiles", "result_files", "write_nbest", "write_results"]


class ResultFiles(NamedTuple):
    """Where the results of one split lie."""

    recogs: Path
    errs: Path
    summary: Path
    nbest: Path
    """Only with `write_nbest`, after the others."""


def result_files(directory: AnyPath, split: str) -> ResultFiles:
    """The names of the files of `split` in `directory`."""
    directory = Path(directory)
    return ResultFiles(
        directory / f"recogs-{split}.txt",
        directory / f"errs-{split}.txt",
        directory / f"summary-{split}.json",
        directory / f"nbest-{split}.json",
    )


def write_results(
    directory: AnyPath, hypotheses: Sequence[Hypothesis], summary: Mapping[str, Any]
) -> ResultFiles:
    """Writes the three files of the summary's split, texts in units of the summary's `unit`; NaN
    and infinities become null.

    Raises:
        ValueError: two hypotheses of the same id.
        OSError: the folder cannot be written.
    """
    split = UNITS[summary["unit"]].split
    items = sorted(Recognised(item.id, split(item.ref), split(item.text)) for item in hypotheses)
    ids = [item.id for item in items]
    if len(set(ids)) != len(ids):
        twice = next(a for a, b in pairwise(ids) if a == b)
        raise ValueError(f"each utterance must be decoded once, but {twice!r} came twice")
    files = result_files(directory, summary["split"])
    for old in (files.summary, files.nbest):  # of an earlier run: they would not fit the new files
        old.unlink(missing_ok=True)
    write_atomically(files.recogs, format_recogs(items).encode())
    write_atomically(files.errs, format_errs(items).encode())
    text = json.dumps(_plain(summary), ensure_ascii=False, allow_nan=False, indent=2)
    write_atomically(files.summary, f"{text}\n".encode())
    return files


def write_nbest(
    directory: AnyPath,
    split: str,
    hypotheses: Sequence[Hypothesis],
    detokenise: Detokenise,
    total: Callable[[ScoredText], float],
) -> Path:
    """Writes `nbest-<split>.json`: per utterance its texts, the best first, with all scores.

    Args:
        total: the weighted sum by which they are ranked.

    Raises:
        ValueError: no hypothesis has a list.
    """
    if hypotheses and not any(hypothesis.nbest for hypothesis in hypotheses):
        raise ValueError("this search makes no n-best lists, so there is none to write")
    lists = {
        item.id: [_entry(text, detokenise, total) for text in item.nbest]
        for item in sorted(hypotheses, key=lambda item: item.id)
    }
    path = result_files(directory, split).nbest
    text = json.dumps(_plain(lists), ensure_ascii=False, allow_nan=False, indent=1)
    write_atomically(path, f"{text}\n".encode())
    return path


def _entry(
    text: ScoredText, detokenise: Detokenise, total: Callable[[ScoredText], float]
) -> dict[str, Any]:
    summed = {"text": detokenise(text.tokens), "tokens": text.tokens, "total": total(text)}
    return {**summed, **text.scores}


def _plain(value: Any) -> Any:
    """`value` with every float that JSON cannot hold replaced by None."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
