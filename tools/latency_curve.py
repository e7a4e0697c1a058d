#!/usr/bin/env python3
"""Accuracy against latency: one checkpoint decoded with several chunk lengths, one table.

    tools/latency_curve.py --exp-dir EXP --data-dir DATA --split eval1 eval2 eval3
        [--chunks 160 320 640 1280] [--method 1best] [--num-streams 8] [--png]

Each chunk length really streams, chunk by chunk, as egs/csj/streaming_decode.py does; the full
branch is decoded offline (1best, or the same method if it weighs scores) and counts as shown at
the end of the sentence. Results go to OUT/streaming-<ms>ms/ and OUT/full/
{recogs,errs,summary,emissions}-<split>, the table to OUT/latency.md, with --png the curve to
OUT/latency.png. OUT is EXP/decode/latency.

What is finished is not decoded again as long as weights, options and references are the same, so
an interrupted run goes on. --chunk-ms is the chunk below the full branch and, for a method
that weighs scores, the one that scales are tuned with; --left-ms holds for all chunks.
"""

import argparse
from pathlib import Path

from dualasr_lib.core.files import output_folder, write_atomically
from dualasr_lib.core.program import run_program
from dualasr_lib.programs.options import add_options, decode_config, parser


def parse_arguments() -> argparse.Namespace:
    reader = parser(__doc__)
    add_options(reader, "curve")
    add = reader.add_argument
    add("--chunks", type=int, nargs="+", default=[160, 320, 640, 1280], metavar="MS",
        help="milliseconds; default: 160 320 640 1280")  # fmt: skip
    add("--out", type=output_folder, help="default: EXP/decode/latency")
    add("--png", action="store_true", help="also OUT/latency.png; needs matplotlib")
    return reader.parse_args()


def main() -> None:
    arguments = parse_arguments()
    config = decode_config(arguments, "curve")
    # What is heavy, after all options are read:
    from analysis.latency.curve import Curve, Plan
    from analysis.latency.report import table

    from dualasr_lib.programs.data import open_data
    from dualasr_lib.recognition.decode_setup import DecodeSetup

    if arguments.png:
        from analysis.latency.drawing import draw  # fails before the work, not after it
    setup = DecodeSetup(config, open_data)
    plan = Plan(
        splits=list(dict.fromkeys(arguments.split)),
        chunks_ms=arguments.chunks,
        num_streams=arguments.num_streams,
        left_ms=config.left_ms,
    )
    out: Path = arguments.out or config.results_dir / "decode" / "latency"
    data = open_data(setup.trained, config.data_dir)
    points = Curve(setup, data, plan, out).points()
    head = f"{setup.trained.source}, streaming search {config.methods[0]}"
    text = f"{head}\n\n{table(points)}\n"
    write_atomically(out / "latency.md", text.encode())
    print(f"\n{text}")
    if arguments.png:
        draw(points, out / "latency.png")


if __name__ == "__main__":
    run_program(main)
