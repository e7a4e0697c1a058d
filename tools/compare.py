#!/usr/bin/env python3
"""Compares two decoding results of the same utterances: relative reduction of the error rate, with
a paired-bootstrap interval.

    python tools/compare.py BASELINE/summary-eval1.json SYSTEM/summary-eval1.json [--json] [--draws
    N] [--seed S]

Relative CERR (of words: WERR) = (baseline - system) / baseline; above 0 the system is better.
Errors per utterance come from the `recogs-<split>.txt` beside each summary; ids, references and
units must agree. Differences below 0.3 points of CER need several training seeds as well: the
interval knows about utterances only.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dualasr_lib.decoding.recogs import Recognised, read_recogs
from dualasr_lib.decoding.summary import main_unit
from dualasr_lib.metrics.alignment import align
from dualasr_lib.metrics.bootstrap import (
    BootstrapConfig,
    Interval,
    cer_interval,
    in_words,
    relative_cerr_interval,
)
from dualasr_lib.metrics.error_rate import ErrorCounts, count_pairs
from dualasr_lib.metrics.units import UNITS, Unit

__all__ = ["Result", "compare", "main", "read_result"]


class Result(NamedTuple):
    """A decoded split, read back."""

    path: Path
    summary: dict[str, Any]
    counts: dict[str, ErrorCounts]
    """Errors by utterance id."""
    refs: dict[str, str]
    """Reference texts by utterance id."""
    hyps: dict[str, str]
    """Recognised texts by utterance id."""

    @property
    def name(self) -> str:
        """Split, branch and method."""
        return " ".join(str(self.summary.get(key, "?")) for key in ("split", "branch", "method"))

    @property
    def unit(self) -> Unit:
        """What errors are counted in."""
        return main_unit(self.summary)


def read_result(path: Path) -> Result:
    """Reads a summary and the recogs file beside it.

    Raises:
        ValueError: a file is missing or malformed, or the two do not belong together.
    """
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        split, num_errors = summary["split"], summary["ins"] + summary["del"] + summary["sub"]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} must be a summary-<split>.json of decode.py: {error!r}") from None
    unit = main_unit(summary)
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


def compare(baseline: Result, system: Result, config: BootstrapConfig) -> dict[str, Any]:
    """Both error rates with their intervals and the relative reduction; plain values for JSON.

    Raises:
        ValueError: the utterances or the references differ.
    """
    _check_same(baseline, system)
    ids = sorted(baseline.counts)
    errors = [[result.counts[id_].errors for id_ in ids] for result in (baseline, system)]
    lengths = [baseline.counts[id_].num_ref for id_ in ids]
    intervals = [cer_interval(column, lengths, config) for column in errors]
    reduction = relative_cerr_interval(errors[0], errors[1], config)
    return {
        "baseline": {"path": str(baseline.path), "name": baseline.name, **_plain(intervals[0])},
        "system": {"path": str(system.path), "name": system.name, **_plain(intervals[1])},
        "unit": baseline.unit.name,
        f"relative_{baseline.unit.rate}r": _plain(reduction),
        "verdict": in_words(reduction, config.level),
        "num_utterances": len(ids),
        f"num_ref_{baseline.unit.plural}": sum(lengths),
        "num_equal_texts": sum(baseline.hyps[id_] == system.hyps[id_] for id_ in ids),
        "bootstrap": {"draws": config.num_draws, "level": config.level, "seed": config.seed},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        config = BootstrapConfig(num_draws=options.draws, seed=options.seed)
        report = compare(read_result(options.baseline), read_result(options.system), config)
    except ValueError as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(report, ensure_ascii=False, indent=2))
    else:
        print(_table(report))
    return 0


def _parser() -> argparse.ArgumentParser:
    defaults = BootstrapConfig()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("baseline", type=Path, help="summary-<split>.json of the baseline")
    parser.add_argument("system", type=Path, help="summary-<split>.json of the system")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--draws", type=int, default=defaults.num_draws, help="bootstrap draws")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="seed of the draws")
    return parser


def _count(item: Recognised) -> ErrorCounts:
    return count_pairs(align(item.ref, item.hyp))


def _check_same(baseline: Result, system: Result) -> None:
    if baseline.unit != system.unit:
        raise ValueError(
            "both results must count the same unit, but count "
            f"{baseline.unit.name}s and {system.unit.name}s"
        )
    for a, b in ((baseline, system), (system, baseline)):
        missing = sorted(a.counts.keys() - b.counts.keys())
        if missing:
            raise ValueError(
                "both results must hold the same utterances, but "
                f"{len(missing)} of {a.path} are not in {b.path} (first: {missing[0]!r})"
            )
    for id_ in sorted(baseline.refs):
        if baseline.refs[id_] != system.refs[id_]:
            raise ValueError(
                f"both results must have the same references, but utterance {id_!r} has "
                f"{baseline.refs[id_]!r} in {baseline.path} and "
                f"{system.refs[id_]!r} in {system.path}"
            )


def _plain(interval: Interval) -> dict[str, Any]:
    return {"value": interval.value, "ci95": [interval.low, interval.high]}


def _table(report: dict[str, Any]) -> str:
    unit = UNITS[report["unit"]]
    rows = [("", f"{unit.label} %", "95 % interval", "what", "file")]
    rows += [
        (role, *_cells(report[role]), report[role]["name"], report[role]["path"])
        for role in ("baseline", "system")
    ]
    relative = _cells(report[f"relative_{unit.rate}r"])
    rows.append((f"relative {unit.label}R", *relative, "> 0: system is better", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in rows]
    lines.append(
        f"{report['num_utterances']} utterances, {report[f'num_ref_{unit.plural}']} {unit.name}s, "
        f"{report['num_equal_texts']} texts equal"
    )
    lines.append(report["verdict"])
    return "\n".join(line.rstrip() for line in lines)


def _cells(value: dict[str, Any]) -> tuple[str, str]:
    """Value and interval in per cent; "-" where undefined."""
    if value["value"] is None:
        return "-", "-"
    low, high = value["ci95"]
    return f"{100 * value['value']:.2f}", f"[{100 * low:.2f}, {100 * high:.2f}]"


if __name__ == "__main__":
    sys.exit(main())
