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
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dualasr_lib.core.program import run_program
from dualasr_lib.core.table import aligned
from dualasr_lib.metrics.units import UNITS

if TYPE_CHECKING:
    from dualasr_lib.decoding.results import Result
    from dualasr_lib.metrics.bootstrap import BootstrapConfig, Interval

__all__ = ["compare", "main"]


def compare(baseline: "Result", system: "Result", config: "BootstrapConfig") -> dict[str, Any]:
    """Both error rates with their intervals and the relative reduction; plain values for JSON.

    Raises:
        ValueError: the utterances or the references differ.
    """
    from dualasr_lib.metrics.bootstrap import cer_interval, in_words, relative_cerr_interval

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


def main(arguments: Sequence[str] | None = None) -> None:
    """The program.

    Raises:
        ValueError: as `compare`, or a file is missing or damaged.
    """
    options = _parser().parse_args(arguments)
    # What is heavy, after the options are read:
    from dualasr_lib.decoding.results import read_result
    from dualasr_lib.metrics.bootstrap import BootstrapConfig

    given = {"num_draws": options.draws, "seed": options.seed}
    config = BootstrapConfig(**{name: v for name, v in given.items() if v is not None})
    report = compare(read_result(options.baseline), read_result(options.system), config)
    if options.json:
        print(json.dumps(report, ensure_ascii=False, indent=2))
    else:
        print(_table(report))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("baseline", type=Path, help="summary-<split>.json of the baseline")
    parser.add_argument("system", type=Path, help="summary-<split>.json of the system")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--draws", type=int, help="bootstrap draws; default: 2000")
    parser.add_argument("--seed", type=int, help="seed of the draws")
    return parser


def _check_same(baseline: "Result", system: "Result") -> None:
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


def _plain(interval: "Interval") -> dict[str, Any]:
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
    lines = [aligned(rows)]
    lines.append(
        f"{report['num_utterances']} utterances, {report[f'num_ref_{unit.plural}']} {unit.name}s, "
        f"{report['num_equal_texts']} texts equal"
    )
    lines.append(report["verdict"])
    return "\n".join(lines)


def _cells(value: dict[str, Any]) -> tuple[str, str]:
    """Value and interval in per cent; "-" where undefined."""
    if value["value"] is None:
        return "-", "-"
    low, high = value["ci95"]
    return f"{100 * value['value']:.2f}", f"[{100 * low:.2f}, {100 * high:.2f}]"


if __name__ == "__main__":
    run_program(main)
