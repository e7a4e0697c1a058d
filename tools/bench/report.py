"""Results as rows of one table with targets and verdicts, and as JSON; the settings of the run."""

import json
import math
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dualasr_lib.core.files import write_atomically

__all__ = ["HEADER", "Row", "announce", "cells", "number", "write_json"]

HEADER = ("case", "what", "value", "target", "verdict")
_VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", "MALLOC_MMAP_THRESHOLD_"),
    *("MALLOC_TRIM_THRESHOLD_", "THP_MEM_ALLOC_ENABLE"),
)


class Row(NamedTuple):
    """One measured number."""

    case: str
    what: str
    value: float
    unit: str = ""
    at_most: float | None = None
    """Target from above."""
    at_least: float | None = None
    """Target from below."""

    @property
    def passed(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return None if self.at_least is None else self.value >= self.at_least


def cells(row: Row) -> tuple[str, ...]:
    """A line under `HEADER`."""
    target = ""
    if row.at_most is not None:
        target = f"<= {number(row.at_most)} {row.unit}".rstrip()
    elif row.at_least is not None:
        target = f">= {number(row.at_least)} {row.unit}".rstrip()
    verdict = {None: "", True: "pass", False: "MISS"}[row.passed]
    return (row.case, row.what, f"{number(row.value)} {row.unit}".rstrip(), target, verdict)


def announce(threads: int, device: str) -> dict[str, Any]:
    """What numbers depend on beside the program: versions, machine, variables; printed, too.

    A line on stderr warns where tools/env.sh has not been sourced: times are then much longer.
    """
    variables = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    found = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else _processor(),
        "threads": threads,
        "load": round(os.getloadavg()[0], 2),
    }
    print("  ".join(f"{key}: {value}" for key, value in {**found, **variables}.items()), flush=True)
    amd = "AuthenticAMD" in _cpuinfo("vendor_id")
    needed = [name for name in _VARIABLES if amd or name != "MKL_DEBUG_CPU_TYPE"]
    missing = [name for name in needed if name not in variables]
    if missing:
        advice = "`source tools/env.sh` sets what training runs with"
        print(f"warning: {', '.join(missing)} not set; {advice}", file=sys.stderr)
    return {**found, "env": variables}


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Plain values as JSON, whole or not at all."""
    text = json.dumps(values, ensure_ascii=False, indent=2)
    write_atomically(path, f"{text}\n".encode())


def number(value: float) -> str:
    """Three digits or two decimals; "-" for NaN."""
    if math.isnan(value):
        return "-"
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
