#!/usr/bin/env python3
"""Speed and memory of training, beside their targets.

    source tools/env.sh; tools/bench_training.py [--case encoder|joint|long|memory|bf16|
        transducer|heads|gpu|all]
        [--threads 1] [--dtype float32|bfloat16] [--device cpu|cuda] [--rounds 5] [--json FILE]

encoder  the streaming encoder alone, 10 x 10 s, chunk 32, left 128: ms per second of audio, where
         the time goes, and arithmetic efficiency = 3.9 GFLOP per second of audio / time / the rate
         of float32 matrix products measured in the same rounds
joint    both branches with decoders, losses and distillation, against the streaming branch alone
long     1 x 50 s against 5 x 10 s, and how memory grows with the length
memory   peak memory of a batch of 100 s, in a process of its own
bf16     bfloat16 autocast against float32 (torch 2)
transducer  our transducer loss beside k2's way (where there is k2), at V = 500 and --vocab-size:
         time per branch, memory over the encoder's
heads    the joint model with a transducer as a third head on both branches against two heads, all
         with fresh weights, where a transducer costs most
gpu      a batch of 1200 s in bfloat16: audio hours per second, share of the matmul peak, memory

Times are medians over rounds. On one CPU thread verdicts go by CPU time, which other programs on
the machine hardly change; with more threads, and on a GPU, by wall time. Exit code 0 whether or not
targets are met.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.names import CASE_NAMES

from dualasr_lib.core.program import run_program
from dualasr_lib.core.table import markdown

if TYPE_CHECKING:
    from bench.report import Row
    from bench.training import Bench, PartRow

_CONF = Path(__file__).resolve().parents[1] / "egs" / "csj" / "conf"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add(
        "--case", choices=(*CASE_NAMES, "all"), default="all", help="default: all that can run here"
    )
    add("--config", type=Path, default=_CONF / "sizes" / "small.toml", help="of the encoder alone")
    add("--joint-config", type=Path, default=_CONF / "small.toml", help="of the joint model")
    add("--set", nargs="*", default=[], metavar="KEY=VALUE", help="on top of both")
    add("--utterances", type=int, default=10, help="utterances of a batch")
    add("--seconds", type=float, default=10.0, help="length of each")
    add("--chunk", type=int, default=32, help="chunk, 50 Hz frames")
    add("--left", type=int, default=128, help="left context, 50 Hz frames")
    add("--threads", type=int, default=1)
    add("--dtype", choices=("float32", "bfloat16"), default="float32")
    add("--device", default="cpu", help="cpu or cuda")
    add("--rounds", type=int, default=5)
    add("--vocab-size", type=int, default=3266, help="of the joint model")
    add("--no-breakdown", action="store_true", help="no times by part")
    add("--json", type=Path, metavar="FILE", help="write all numbers there too")
    return parser.parse_args()


def bench_of(arguments: argparse.Namespace) -> "Bench":
    """What the options ask for."""
    if arguments.rounds < 1:
        raise ValueError(f"--rounds must be at least 1, but is {arguments.rounds}")
    from bench.training import Bench  # what is heavy, after the options
    from bench.workloads import Setting

    encoder = Setting(
        config=arguments.config,
        overrides=tuple(arguments.set),
        utterances=arguments.utterances,
        seconds=arguments.seconds,
        chunk=arguments.chunk,
        left=arguments.left,
        dtype=arguments.dtype,
        device=arguments.device,
        threads=arguments.threads,
        vocab_size=arguments.vocab_size,
    )
    by_cpu_time = arguments.threads == 1 and not encoder.device.startswith("cuda")
    return Bench(
        encoder=encoder,
        joint=replace(encoder, config=arguments.joint_config),
        rounds=arguments.rounds,
        breakdown=not arguments.no_breakdown,
        clock="cpu" if by_cpu_time else "wall",
    )


def cases_for(case: str, bench: "Bench") -> list[str]:
    """The cases to run; `all` leaves out what cannot be here, and says so.

    Raises:
        ValueError: a case that was asked for by name cannot be.
    """
    import torch

    cannot = {}
    if bench.device.type == "cuda":
        cannot["memory"] = "it measures a CPU run; case gpu has the memory of a GPU"
    else:
        cannot["gpu"] = "it needs --device cuda"
    if int(torch.__version__.split(".")[0]) < 2:
        cannot["bf16"] = f"it needs torch 2, but this is {torch.__version__}"
    if not bench.joint.config.exists():
        for name in ("joint", "heads"):
            cannot[name] = f"its configuration {bench.joint.config} does not exist"
    if case in cannot:
        raise ValueError(f"case {case} cannot run: {cannot[case]}")
    if case != "all":
        return [case]
    for name, reason in cannot.items():
        print(f"case {name} left out: {reason}")
    return [name for name in CASE_NAMES if name not in cannot]


def parts_table(rows: Sequence["PartRow"]) -> str:
    """Markdown; shares are of the whole step."""
    whole = sum(row.forward + row.backward for row in rows) or 1.0
    lines = [("part", "forward ms/s", "backward ms/s", "share %")]
    for row in rows:
        share = 100.0 * (row.forward + row.backward) / whole
        lines.append((row.part, f"{row.forward:.2f}", f"{row.backward:.2f}", f"{share:.1f}"))
    return markdown(lines)


def main() -> None:
    arguments = parse_arguments()
    bench = bench_of(arguments)
    chosen = cases_for(arguments.case, bench)
    import torch
    from bench.report import HEADER, announce, cells, write_json
    from bench.training import CASES

    torch.set_num_threads(arguments.threads)
    settings = announce(arguments.threads, arguments.device)
    rows: list[Row] = []
    parts: dict[str, list[PartRow]] = {}
    for case in chosen:
        result = CASES[case](bench)
        rows += result.rows
        parts |= result.parts
        print(f"{case} done", flush=True)
    for title, times in parts.items():
        print(f"\n{title}, by part\n\n{parts_table(times)}")
    print(f"\n{markdown([HEADER, *map(cells, rows)])}")
    if arguments.json:
        by_part = {case: [row._asdict() for row in times] for case, times in parts.items()}
        judged = [{**row._asdict(), "passed": row.passed} for row in rows]
        write_json(arguments.json, {"settings": settings, "rows": judged, "parts": by_part})


if __name__ == "__main__":
    run_program(main)
