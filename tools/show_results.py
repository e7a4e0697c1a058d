#!/usr/bin/env python3
"""Prints one table from all summary files of an experiment: CER with interval, RTF, latency.

tools/show_results.py EXP [--markdown]
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dualasr_lib.metrics.cer import ErrorCounts
from dualasr_lib.program import run_program

HEADER = (
    *("branch", "method", "split", "utts", "chars", "CER %", "95 %", "RTF"),
    *("algo ms", "first ms", "emission ms", "chunk ms"),
)
FOOTER = """algo: algorithmic latency, chunk + look-ahead; first: first text after speech onset;
emission: a correct word is shown after it ended, p50/p90; chunk: its compute time, p50/p99"""


def read_summaries(exp_dir: Path) -> list[dict[str, Any]]:
    """All `decode/*/summary-*.json` of an experiment, in the order of their names."""
    paths = sorted((exp_dir / "decode").glob("*/summary-*.json"))
    if not paths:
        raise ValueError(f"no decode/*/summary-*.json in {exp_dir}: decode.py writes them")
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def row(summary: dict[str, Any]) -> tuple[str, ...]:
    """One line of the table; `FOOTER` says what the columns are."""
    latency = summary.get("latency") or {}
    low, high = (_percent(value) for value in summary["cer_ci95"] or (None, None))
    return (
        summary["branch"],
        summary["method"],
        summary["split"],
        str(summary["num_utterances"]),
        str(summary["num_ref_chars"]),
        _percent(summary["cer"]),
        f"{low}-{high}",
        _number(summary["rtf"], 3),
        _number(latency.get("algorithmic_ms"), 1),
        _number(latency.get("first_token_ms"), 0),
        _percentiles(latency.get("emission_ms"), ("p50", "p90")),
        _percentiles(latency.get("chunk_compute_ms"), ("p50", "p99")),
    )


def pooled(summaries: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """One line per branch and method: the CER over the characters of all its splits."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for summary in summaries:
        groups.setdefault((summary["branch"], summary["method"]), []).append(summary)
    lines = []
    for (branch, method), members in groups.items():
        each = (ErrorCounts(m["ins"], m["del"], m["sub"], m["num_ref_chars"]) for m in members)
        counts = sum(each, ErrorCounts())
        rtf = sum(m["rtf"] * m["audio_seconds"] for m in members)
        rtf /= sum(m["audio_seconds"] for m in members)
        utterances = str(sum(m["num_utterances"] for m in members))
        cer = _percent(counts.rate)
        numbers = (utterances, str(counts.num_ref_chars), cer, "", _number(rtf, 3))
        lines.append((branch, method, "all", *numbers, *[""] * 4))
    return lines


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
    summaries = read_summaries(arguments.exp_dir)
    lines = [HEADER, *map(row, summaries), *pooled(summaries)]
    print(table(lines, arguments.markdown))
    print(FOOTER)


if __name__ == "__main__":
    run_program(main)
