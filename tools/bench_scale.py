#!/usr/bin/env python3
"""What grows with the corpus: the start of training, the cost of a batch, the n-gram's training.

    tools/bench_scale.py [--utterances 12000 120000 1200000] [--characters 100000 1000000 4000000]

The real code on made-up inputs (no audio is read), each case in a process of its own. Of the start
of training: seconds until it is known which utterances are left out, seconds to the first batch
(the former included), milliseconds a batch after it, peak resident memory. "first" is a start with
a new manifest, "again" the next one. "~" marks what is extrapolated, in a straight line through
the two largest cases: to 10,000 hours, and to the characters of --extrapolate. Batches must cost
the same whatever the size; a corpus that fits into the sampler's buffer has no part in that, since
all its lines are read before the first batch.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dualasr_lib.core.files import output_file
from dualasr_lib.core.program import run_program
from dualasr_lib.core.table import markdown

if TYPE_CHECKING:
    from bench.report import Row

_HOURS = 10_000
_LIMIT_S, _LIMIT_GB = 60.0, 2.0


def start_rows(counts: list[int], batches: int) -> "list[Row]":
    """Of training on so many utterances."""
    from bench.report import Row
    from bench.scale import BUFFER, SECONDS, Start, StartJob, measure_start, write_data

    rows: list[Row] = []
    base: dict[str, float] = {}
    found: dict[str, list[Start]] = {"first": [], "again": []}
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_data(folder, count)
            job = StartJob(folder, batches, folder / "found.json")
            for start, costs in found.items():
                print(f"{count} utterances, {start}", file=sys.stderr)
                costs.append(cost := measure_start(job))
                if count > BUFFER:
                    base.setdefault(start, cost.batch)
                flat = 1.5 * base[start] if start in base else None
                case = f"{count}, {start}"
                rows += [
                    Row(case, "utterances known", cost.checked, "s"),
                    Row(case, "first batch", cost.first, "s"),
                    Row(case, "a batch", cost.batch, "ms", at_most=flat),
                    Row(case, "peak memory", cost.peak / 1e9, "GB"),
                ]
    target = round(_HOURS * 3600 / SECONDS)
    for start, costs in found.items():
        case = f"~{_HOURS} h, {start}"
        first = _line(counts, [cost.first for cost in costs], target)
        peak = _line(counts, [cost.peak / 1e9 for cost in costs], target)
        rows += [
            Row(case, "first batch", first, "s", at_most=_LIMIT_S),
            Row(case, "peak memory", peak, "GB", at_most=_LIMIT_GB),
        ]
    return rows


def ngram_rows(sizes: list[int], order: int, target: int) -> "list[Row]":
    """Of the n-gram of texts of so many characters."""
    from bench.scale import measure_ngram

    rows: list[Row] = []
    costs: list[tuple[float, float]] = []
    for size in sizes:
        print(f"{size} characters", file=sys.stderr)
        with tempfile.TemporaryDirectory() as name:
            seconds, peak = measure_ngram(size, order, Path(name))
        costs.append((seconds, peak / 1e9))
        rows += _ngram(f"{size / 1e6:g} M", order, *costs[-1])
    seconds, gigabytes = (_line(sizes, values, target) for values in zip(*costs))
    return rows + _ngram(f"~{target / 1e6:g} M", order, seconds, gigabytes)


def _line(sizes: Sequence[int], values: Sequence[float], target: int) -> float:
    """The value at `target` of the line through the last two points, or the last one and 0."""
    (x0, y0), (x1, y1) = [(0, 0.0), *zip(sizes, values)][-2:]
    return y1 + (target - x1) * (y1 - y0) / (x1 - x0)


def _ngram(size: str, order: int, seconds: float, gigabytes: float) -> "list[Row]":
    from bench.report import Row

    case = f"{order}-gram, {size}"
    return [Row(case, "training", seconds, "s"), Row(case, "peak memory", gigabytes, "GB")]


def main() -> None:
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    numbers: dict[str, Any] = {"type": int, "nargs": "*", "metavar": "N"}
    reader.add_argument("--utterances", default=[12_000, 120_000, 1_200_000], **numbers)
    reader.add_argument("--batches", type=int, default=500, help="drawn in each; default: 500")
    reader.add_argument("--characters", default=[100_000, 1_000_000, 4_000_000], **numbers)
    reader.add_argument("--order", type=int, default=5, help="of the n-gram; default: 5")
    reader.add_argument("--extrapolate", type=int, default=12_000_000, metavar="N",
                        help="characters; default: 12000000, those of CSJ")  # fmt: skip
    reader.add_argument("--json", type=output_file, metavar="FILE", help="write the rows here, too")
    arguments = reader.parse_args()
    for name in ("utterances", "characters"):
        if any(size < 1 for size in getattr(arguments, name)):
            raise ValueError(f"--{name} must be at least 1, are {getattr(arguments, name)}")
    from bench.report import HEADER, announce, cells, write_json  # what is heavy, after the options

    told = announce(1, "cpu")
    rows: list[Row] = []
    if arguments.utterances:
        rows += start_rows(sorted({*arguments.utterances}), arguments.batches)
    if arguments.characters:
        rows += ngram_rows(sorted({*arguments.characters}), arguments.order, arguments.extrapolate)
    print(markdown([HEADER, *map(cells, rows)]))
    if arguments.json:
        write_json(arguments.json, {"run": told, "rows": [row._asdict() for row in rows]})


if __name__ == "__main__":
    run_program(main)
