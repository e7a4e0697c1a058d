#!/usr/bin/env python3
"""What grows with the corpus: the start of training, the cost of a batch, the n-gram's training.

    tools/bench_scale.py [--utterances 12000 120000 1200000] [--characters 100000 1000000 4000000]

The real code on made-up inputs (no audio is read), each case in a process of its own. Seconds are
those of the CPU, which other programs on the machine hardly change. Of data for training: what
prepare.sh takes to look at every utterance once, and its peak resident memory; then of a start,
seconds until it is known which utterances are left out, to the first batch (the former included),
milliseconds a batch after it, and again the memory. "~" marks what is extrapolated, in a straight
line through the two largest cases: to 10,000 hours, and to the characters of --extrapolate.
Batches must cost the same whatever the size; a corpus that fits into the sampler's buffer has no
part in that, since all its lines are read before the first batch.
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
    from bench.scale import (
        BUFFER,
        SECONDS,
        Prepared,
        Start,
        StartJob,
        measure_preparation,
        measure_start,
        write_data,
    )

    rows: list[Row] = []
    prepared: list[Prepared] = []
    starts: list[Start] = []
    flat: float | None = None
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_data(folder, count)
            job = StartJob(folder, batches, folder / "found.json")
            print(f"{count} utterances, prepared", file=sys.stderr)
            prepared.append(cost := measure_preparation(job))
            print(f"{count} utterances, a start", file=sys.stderr)
            starts.append(start := measure_start(job))
        rows += [
            Row(f"{count}, prepared", "all lines", cost.seconds, "s"),
            Row(f"{count}, prepared", "peak memory", cost.peak / 1e9, "GB"),
            Row(f"{count}, start", "utterances known", start.checked, "s"),
            Row(f"{count}, start", "first batch", start.first, "s"),
            Row(f"{count}, start", "a batch", start.batch, "ms", at_most=flat),
            Row(f"{count}, start", "peak memory", start.peak / 1e9, "GB"),
        ]
        if count > BUFFER and flat is None:
            flat = 1.5 * start.batch
    target = round(_HOURS * 3600 / SECONDS)
    first = _line(counts, [start.first for start in starts], target)
    peaks = [
        _line(counts, [cost.peak / 1e9 for cost in costs], target) for costs in (prepared, starts)
    ]
    seconds = _line(counts, [cost.seconds for cost in prepared], target)
    return [
        *rows,
        Row(f"~{_HOURS} h, prepared", "all lines", seconds, "s"),
        Row(f"~{_HOURS} h, prepared", "peak memory", peaks[0], "GB", at_most=_LIMIT_GB),
        Row(f"~{_HOURS} h, start", "first batch", first, "s", at_most=_LIMIT_S),
        Row(f"~{_HOURS} h, start", "peak memory", peaks[1], "GB", at_most=_LIMIT_GB),
    ]


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
