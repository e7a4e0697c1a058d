"""Works that are compared take turns."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

from bench.timing import measure, median

__all__ = ["in_turns"]

Name = TypeVar("Name")


def in_turns(works: Mapping[Name, Callable[[], object]], rounds: int) -> dict[Name, float]:
    """Median milliseconds of CPU time of each, after one run that does not count."""
    times: dict[Name, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(1000 * measure(work, torch.device("cpu")).cpu)
    return {name: median(values) for name, values in times.items()}
