#!/usr/bin/env python3
"""Prints one table from all summary files of an experiment: error rate with interval, RTF, latency.

tools/show_results.py EXP [--markdown]
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dualasr_lib.core.program import run_program
from dualasr_lib.decoding.recogs import read_recogs
from dualasr_lib.decoding.summary import main_unit
from dualasr_lib.metrics.alignment import align
from dualasr_lib.metrics.bootstrap import BootstrapConfig, cer_interval
from dualasr_lib.metrics.error_rate import ErrorCounts, count_pairs

HEADER = (
    *("branch", "method", "split", "utts", "units", "rate %", "95 %", "RTF"),
    *("fall-backs", "algo ms", "first ms", "emission ms", "chunk ms", "2nd pass ms"),
)
FOOTER = """rate: {rates};
algo: algorithmic latency, chunk + look-ahead; first: first text after speech onset;
emission: a correct word is shown after it ended, p50/p90; chunk: its compute time, p50/p99;
2nd pass: its duration, p50/p90"""


class Result(NamedTuple):
    """One decoded split."""

    summary: dict[str, Any]
    counts: tuple[ErrorCounts, ...]
    """Errors of each utterance."""


def read_results(exp_dir: Path) -> list[Result]:
    """All `decode/*/summary-*.json` of an experiment with their recogs, in the order of names."""
    paths = sorted((exp_dir / "decode").glob("*/summary-*.json"))
    if not paths:
        raise ValueError(f"no decode/*/summary-*.json in {exp_dir}: decode.py writes them")
    return [_read(path) for path in paths]


def _read(path: Path) -> Result:
    summary = json.loads(path.read_text(encoding="utf-8"))
    recogs = path.with_name(f"recogs-{summary['split']}.txt")
    try:
        main_unit(summary)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    items = read_recogs(recogs)
    return Result(summary, tuple(count_pairs(align(item.ref, item.hyp)) for item in items))


def row(summary: dict[str, Any]) -> tuple[str, ...]:
    """One line of the table; `FOOTER` says what the columns are."""
    latency = summary.get("latency") or {}
    unit = main_unit(summary)
    return (
        summary["branch"],
        summary["method"],
        summary["split"],
        str(summary["num_utterances"]),
        str(summary[f"num_ref_{unit.plural}"]),
        _percent(summary[unit.rate]),
        "-".join(map(_percent, summary[f"{unit.rate}_ci95"] or (None, None))),
        _number(summary["rtf"], 3),
        str(summary["fallbacks"]),
        _number({**summary.get("params", {}), **latency}.get("algorithmic_ms"), 1),
        _number(latency.get("first_token_ms"), 0),
        _percentiles(latency.get("emission_ms"), ("p50", "p90")),
        _percentiles(latency.get("chunk_compute_ms"), ("p50", "p99")),
        _percentiles(latency.get("second_pass_ms"), ("p50", "p90")),
    )


def pooled(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """One line per branch and method with several splits that the data folder says to pool: all
    their utterances together.
    """
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        summary = result.summary
        if summary["pooled"]:
            key = (summary["branch"], summary["method"], summary["unit"])
            groups.setdefault(key, []).append(result)
    return [_pool(*key[:2], group) for key, group in groups.items() if len(group) > 1]


def _pool(branch: str, method: str, group: Sequence[Result]) -> tuple[str, ...]:
    counts = [count for result in group for count in result.counts]
    errors, chars = [c.errors for c in counts], [c.num_ref for c in counts]
    interval = cer_interval(errors, chars, BootstrapConfig())
    seconds = sum(result.summary["audio_seconds"] for result in group)
    compute = sum((r.summary["rtf"] or 0.0) * r.summary["audio_seconds"] for r in group)
    return (
        branch,
        method,
        "+".join(result.summary["split"] for result in group),
        str(len(counts)),
        str(sum(chars)),
        _percent(interval.value),
        f"{_percent(interval.low)}-{_percent(interval.high)}",
        _number(compute / seconds if seconds else None, 3),
        str(sum(result.summary["fallbacks"] for result in group)),
        *("", "", "", "", ""),
    )


def table(lines: Sequence[Sequence[str]], markdown: bool) -> str:
    """Aligned columns, or a Markdown table."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    cells = [[cell.ljust(width) for cell, width in zip(line, widths)] for line in lines]
    if not markdown:
        return "\n".join("  ".join(line).rstrip() for line in cells)
    rule = ["-" * width for width in widths]
    return "\n".join("| " + " | ".join(line) + " |" for line in [cells[0], rule, *cells[1:]])


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percentiles(values: dict[str, float] | None, keys: Sequence[str]) -> str:
    return "/".join(_number(values.get(key), 0) for key in keys) if values else "-"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("exp_dir", type=Path, help="what train.py and decode.py wrote")
    parser.add_argument("--markdown", action="store_true", help="a Markdown table")
    arguments = parser.parse_args()
    results = read_results(arguments.exp_dir)
    lines = [HEADER, *(row(result.summary) for result in results), *pooled(results)]
    print(table(lines, arguments.markdown))
    rates = {
        f"{main_unit(result.summary).label} ({result.summary['normalisation']})"
        for result in results
    }
    print(FOOTER.format(rates="; ".join(sorted(rates))))


if __name__ == "__main__":
    run_program(main)
