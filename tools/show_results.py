#!/usr/bin/env python3
"""Prints one table from all summary files of an experiment: error rate with interval, RTF, latency.

tools/show_results.py EXP [--markdown]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dualasr_lib.core.program import run_program
from dualasr_lib.core.table import aligned, markdown

if TYPE_CHECKING:
    from dualasr_lib.decoding.results import Result

HEADER = (
    *("branch", "method", "split", "utts", "units", "error", "rate %", "95 %", "also %", "RTF"),
    *("fall-backs", "algo ms", "first ms", "emission ms", "revised %", "chunk ms", "2nd pass ms"),
)
FOOTER = """rate: {rates}; also: in other units, of the same texts;
algo: algorithmic latency, chunk + look-ahead; first: first text after speech onset;
emission: a correct word is shown after it ended, p50/p90; revised: characters shown and taken
back by the search of the stream, of those in its final texts; chunk: its compute time, p50/p99;
2nd pass: its duration, p50/p90"""


def row(result: "Result") -> tuple[str, ...]:
    """One line of the table; `FOOTER` says what the columns are."""
    summary, unit = result.summary, result.unit
    latency = summary.get("latency") or {}
    return (
        *_system(summary),
        summary["split"],
        str(summary["num_utterances"]),
        str(summary[f"num_ref_{unit.plural}"]),
        unit.label,
        _percent(summary[unit.rate]),
        "-".join(map(_percent, summary[f"{unit.rate}_ci95"] or (None, None))),
        _also(summary),
        _number(summary["rtf"], 3),
        str(summary["fallbacks"]),
        _number({**summary.get("params", {}), **latency}.get("algorithmic_ms"), 1),
        _number(latency.get("first_token_ms"), 0),
        _percentiles(latency.get("emission_ms"), ("p50", "p90")),
        _percent(latency.get("partial_revision_rate")),
        _percentiles(latency.get("chunk_compute_ms"), ("p50", "p99")),
        _percentiles(latency.get("second_pass_ms"), ("p50", "p90")),
    )


class Pooled(NamedTuple):
    """What became of the splits of each system that the data folder says to pool."""

    lines: list[tuple[str, ...]]
    """One per system with several: all their utterances together."""
    refused: list[str]
    """Why those of a system do not make one result, a line each."""


def pooled(results: "Sequence[Result]") -> Pooled:
    """The splits to pool of each branch, method and variant together; splits of different models,
    options, language models or scales are no one system.
    """
    from dualasr_lib.decoding.results import differences

    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if result.summary["pooled"]:
            groups.setdefault((result.system, result.unit.name), []).append(result)
    found = Pooled([], [])
    for (system, _), group in groups.items():
        other = differences(group)
        if other:
            splits = ", ".join(result.summary["split"] for result in group)
            found.refused.append(f"{system}: {splits} differ in {'; '.join(other)}")
        elif len(group) > 1:
            found.lines.append(_pool(group))
    return found


def _pool(group: "Sequence[Result]") -> tuple[str, ...]:
    from dualasr_lib.metrics.bootstrap import BootstrapConfig, cer_interval

    counts = [count for result in group for count in result.counts.values()]
    errors, chars = [c.errors for c in counts], [c.num_ref for c in counts]
    interval = cer_interval(errors, chars, BootstrapConfig())
    seconds = sum(result.summary["audio_seconds"] for result in group)
    compute = sum((r.summary["rtf"] or 0.0) * r.summary["audio_seconds"] for r in group)
    return (
        *_system(group[0].summary),
        "+".join(result.summary["split"] for result in group),
        str(len(counts)),
        str(sum(chars)),
        group[0].unit.label,
        _percent(interval.value),
        f"{_percent(interval.low)}-{_percent(interval.high)}",
        "",
        _number(compute / seconds if seconds else None, 3),
        str(sum(result.summary["fallbacks"] for result in group)),
        *("", "", "", "", "", ""),
    )


def _system(summary: dict[str, Any]) -> tuple[str, str]:
    """Branch, and method with what is not default."""
    return summary["branch"], f"{summary['method']} {summary.get('variant', '')}".rstrip()


def _also(summary: dict[str, Any]) -> str:
    """Error rates in the other units of the data folder."""
    from dualasr_lib.decoding.summary import main_unit

    units = [(main_unit(values), values) for values in summary.get("also", ())]
    return ", ".join(f"{u.label} {_percent(values[u.rate])}" for u, values in units) or "-"


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
    from dualasr_lib.decoding.results import read_results  # what is heavy, after the options

    results = read_results(arguments.exp_dir)
    together = pooled(results)
    lines = [HEADER, *(row(result) for result in results), *together.lines]
    print((markdown if arguments.markdown else aligned)(lines))
    rates = {f"{r.unit.label} ({r.summary['normalisation']})" for r in results}
    print(FOOTER.format(rates="; ".join(sorted(rates))))
    if together.refused:
        raise ValueError(
            "not pooled, because the splits are not of one system:\n" + "\n".join(together.refused)
        )


if __name__ == "__main__":
    run_program(main)
