#!/usr/bin/env python3
"""Speed of streaming: time of one step of the streaming encoder, beside its targets.

    source tools/env.sh; tools/bench_streaming.py [--chunks 16 32 64] [--streams 1 8 32]
        [--left 128] [--threads 1] [--device cpu|cuda] [--json FILE]

A step takes one chunk of each stream through front end and stacks, without CTC head and search.
RTF is per stream: median time of a step / (audio of a chunk x streams). Algorithmic latency is
chunk + look-ahead. An encoder of the published small size has targets for chunk 32 on one CPU
thread: <= 38 ms at 1 stream and <= 110 ms at 8 where float32 matrix products run at 90 GF/s;
elsewhere they are scaled by the rate measured in the same rounds. They are compared with CPU time,
which other programs on the machine hardly change; all else is wall time unless it says cpu.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dualasr_lib.core.files import output_file
from dualasr_lib.core.program import run_program
from dualasr_lib.core.rates import FRAME_SHIFT_MS, FRONT_END_MS
from dualasr_lib.core.table import markdown

if TYPE_CHECKING:
    from bench.streaming import Measured

_SIZES = Path(__file__).resolve().parents[1] / "egs" / "csj" / "conf" / "sizes"
_HEADER = (
    *("chunk", "streams", "latency ms", "p50 ms", "p99 ms", "cpu p50 ms"),
    *("RTF/stream", "GEMM GF/s", "target cpu ms", "verdict"),
)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--config", type=Path, default=_SIZES / "small.toml", help="default: the small encoder")
    add("--set", nargs="*", default=[], metavar="KEY=VALUE", help="on top of it")
    add("--chunks", type=int, nargs="+", default=[16, 32, 64], help="50 Hz frames")
    add("--streams", type=int, nargs="+", default=[1, 8, 32])
    add("--left", type=int, default=128, help="left context, 50 Hz frames")
    add("--threads", type=int, default=1)
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="bfloat16: autocast")
    add("--device", default="cpu", help="cpu or cuda")
    add("--rounds", type=int, default=3, help="turns that each load takes")
    add("--steps", type=int, default=70, help="steps of each turn")
    add("--json", type=output_file, metavar="FILE", help="write all numbers there too")
    return parser.parse_args()


def check(arguments: argparse.Namespace) -> None:
    """ValueError unless all counts are positive."""
    for name in ("rounds", "steps"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name} must be at least 1, but is {getattr(arguments, name)}")
    if min(arguments.streams) < 1:
        raise ValueError(f"--streams must be at least 1, but are {arguments.streams}")


def summary(measured: "Measured", lookahead: int, judged: bool) -> dict[str, Any]:
    """One line of the table as plain values.

    Args:
        lookahead: of the encoder, feature frames (10 ms).
        judged: whether the targets are about this encoder, on one CPU thread.
    """
    from bench.streaming import percentile, target_ms
    from bench.timing import median

    chunk, streams = measured.load
    wall = [1000.0 * step.wall for step in measured.steps]
    cpu = [1000.0 * step.cpu for step in measured.steps]
    target = target_ms(measured) if judged else None
    return {
        "chunk": chunk,
        "streams": streams,
        "algorithmic_ms": FRONT_END_MS * chunk + FRAME_SHIFT_MS * lookahead,
        "p50_ms": percentile(wall, 0.50),
        "p99_ms": percentile(wall, 0.99),
        "cpu_p50_ms": percentile(cpu, 0.50),
        "rtf_per_stream": median(wall) / (FRONT_END_MS * chunk * streams),
        "gemm_gflops": median([rate.wall for rate in measured.rates]) / 1e9,
        "target_cpu_ms": target,
        "passed": None if target is None else median(cpu) <= target,
    }


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    from bench.report import number

    verdicts = {None: "", True: "pass", False: "MISS"}
    rows: list[tuple[str, ...]] = [_HEADER]
    for line in lines:
        target = line["target_cpu_ms"]
        rows.append(
            (
                *(str(line[key]) for key in ("chunk", "streams", "algorithmic_ms")),
                *(f"{line[key]:.1f}" for key in ("p50_ms", "p99_ms", "cpu_p50_ms")),
                f"{line['rtf_per_stream']:.4f}",
                number(line["gemm_gflops"]),
                "" if target is None else f"<= {target:.1f}",
                verdicts[line["passed"]],
            )
        )
    return markdown(rows)


def main() -> None:
    arguments = parse_arguments()
    check(arguments)
    import torch  # what is heavy, after the options
    from bench.report import announce, write_json
    from bench.streaming import Load, measure_loads
    from bench.workloads import Setting, build_encoder, is_yardstick

    settings = [
        Setting(
            config=arguments.config,
            overrides=tuple(arguments.set),
            chunk=chunk,
            left=arguments.left,
            dtype=arguments.dtype,
            device=arguments.device,
            threads=arguments.threads,
        )
        for chunk in arguments.chunks
    ]
    torch.set_num_threads(arguments.threads)
    encoder = build_encoder(settings[0]).eval()
    for setting in settings:
        encoder.check(setting.spec)
    described = announce(arguments.threads, arguments.device)
    loads = [Load(chunk, streams) for chunk in arguments.chunks for streams in arguments.streams]
    found = measure_loads(encoder, settings[0], loads, arguments.rounds, arguments.steps)
    on_cpu = not arguments.device.startswith("cuda")
    judged = on_cpu and arguments.threads == 1 and is_yardstick(encoder)
    lines = [summary(measured, encoder.lookahead, judged) for measured in found]
    print(f"\n{table(lines)}")
    if arguments.json:
        write_json(arguments.json, {"settings": described, "loads": lines})


if __name__ == "__main__":
    run_program(main)
