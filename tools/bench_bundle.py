#!/usr/bin/env python3
"""What a bundle costs: its size, the time to load it, memory, each in a process of its own.

    tools/bench_bundle.py model.dualasr model16.dualasr [--seconds 30]

"import" is torch and the package, "load" `Recogniser.load` with its searches; "heard" is after
--seconds of noise at 16 kHz were transcribed, both passes. CPU seconds on one thread, since other
processes may use the machine; resident memory at its highest up to then.
"""

import argparse
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from dualasr_lib.core.program import run_program
from dualasr_lib.core.table import markdown

_ROOT = Path(__file__).resolve().parents[1]
_HEAD = ("bundle", "MB", "import s", "load s", "heard s", "MB imported", "MB loaded", "MB heard")
_PROCESS = """
import json, sys, time
def now():
    # not ru_maxrss, which a process inherits from the one that started it
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return [time.process_time(), peak / 1024]
points = [now()]
import numpy as np
import torch
torch.set_num_threads(1)
from dualasr_lib.recognition.recogniser import Recogniser
points.append(now())
recogniser = Recogniser.load(sys.argv[1], device="cpu")
points.append(now())
noise = np.random.default_rng(1).standard_normal(int(16000 * float(sys.argv[2])))
recogniser.transcribe(0.05 * noise, 16000)
points.append(now())
print(json.dumps({"points": points, "weights": recogniser.weights}))
"""


def measured(path: Path, seconds: float) -> tuple[str, ...]:
    """A line of the table.

    Raises:
        ValueError: the bundle cannot be loaded; the message is the process's.
    """
    done = subprocess.run(
        [sys.executable, "-c", _PROCESS, str(path.resolve()), str(seconds)],
        cwd=_ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ValueError((done.stderr.splitlines() or ["the process was killed"])[-1])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{path.name}: {found['weights']}", file=sys.stderr)
    times, sizes = zip(*found["points"])
    spent = [f"{after - before:.2f}" for before, after in itertools.pairwise(times)]
    return (path.name, f"{path.stat().st_size / 1e6:.1f}", *spent,
            *(f"{size:.0f}" for size in sizes[1:]))  # fmt: skip


def main() -> None:
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    reader.add_argument("bundles", type=Path, nargs="+", metavar="FILE")
    reader.add_argument("--seconds", type=float, default=30.0, help="of audio; default: 30")
    arguments = reader.parse_args()
    if not arguments.seconds > 0:
        raise ValueError(f"--seconds must be greater than 0, but is {arguments.seconds}")
    rows = [measured(path, arguments.seconds) for path in arguments.bundles]
    print(markdown([_HEAD, *rows]))


if __name__ == "__main__":
    run_program(main)
