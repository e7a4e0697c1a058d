"""Time of a piece of work, and the speed of matrix products that it is compared with.

Wall time is what a user waits; CPU time (of all threads of the process) is what a busy machine
hardly changes, so ratios of one-thread runs are best read from it. Things that are compared take
turns in rounds, so that noise hits all of them.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = [
    "Gemm",
    "Rate",
    "Rounds",
    "Step",
    "Time",
    "Work",
    "measure",
    "median",
    "run_rounds",
    "single_product",
    "timed_step",
    "total",
]

_SIDES = {"cpu": (1024, 1536, 2048), "cuda": (4096, 8192)}
"""Sides of the square products."""
_NARROW = (5000, 192, 512)
"""M, K, N of a product as an encoder layer has it: frames of 100 s x channels x hidden."""
_GRAIN = {"cpu": 4e9, "cuda": 4e12}
"""Operations that one reading of the clock covers at least: clocks have a grain."""


class Time(NamedTuple):
    """Seconds."""

    wall: float
    cpu: float


class Rate(NamedTuple):
    """Floating point operations per second of wall time and of CPU time."""

    wall: float
    cpu: float


class Step(NamedTuple):
    """One forward and one backward pass."""

    forward: Time
    backward: Time


@dataclass(frozen=True, kw_only=True)
class Work:
    """Something that is trained: `forward` gives the tensor that `backward` starts from."""

    name: str
    """Unique among works that are compared."""
    seconds: float
    """Audio seconds of one step."""
    forward: Callable[[], Tensor]
    """One forward pass; gradients of the step before are dropped first, outside the clock."""
    backward: Callable[[Tensor], None]
    """Its backward pass."""
    clear: Callable[[], None]
    """Drops gradients."""
    parts: Mapping[str, nn.Module]
    """What it consists of, for a breakdown."""


def total(times: Step) -> Time:
    """Forward and backward together."""
    return Time(*(a + b for a, b in zip(times.forward, times.backward)))


def median(values: Sequence[float]) -> float:
    """The median; NaN of nothing."""
    return statistics.median(values) if values else float("nan")


def measure(action: Callable[[], object], device: torch.device) -> Time:
    """Time of one call; on a GPU the wall time is the device's, between two events."""
    if device.type != "cuda":
        cpu, wall = time.process_time(), time.perf_counter()
        action()
        return Time(time.perf_counter() - wall, time.process_time() - cpu)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    cpu = time.process_time()
    begin.record()
    action()
    end.record()
    torch.cuda.synchronize(device)
    return Time(begin.elapsed_time(end) / 1000.0, time.process_time() - cpu)


class Gemm:
    """Matrix products of fixed shapes, whose rate says how fast this machine is just now."""

    def __init__(
        self, device: torch.device, dtype: torch.dtype, sides: tuple[int, ...] = ()
    ) -> None:
        self._grain = _GRAIN[device.type]
        generator = torch.Generator().manual_seed(0)
        shapes = [*((side, side, side) for side in sides or _SIDES[device.type]), _NARROW]
        self._pairs = [
            (
                torch.randn((m, k), generator=generator).to(device, dtype),
                torch.randn((k, n), generator=generator).to(device, dtype),
            )
            for m, k, n in shapes
        ]
        self.square()
        self.narrow()

    def square(self) -> Rate:
        """The best rate over the square shapes."""
        rates = [_rate(*pair, self._grain) for pair in self._pairs[:-1]]
        return Rate(max(rate.wall for rate in rates), max(rate.cpu for rate in rates))

    def narrow(self) -> Rate:
        """The rate of the encoder-like shape."""
        return _rate(*self._pairs[-1], self._grain)


def single_product(device: torch.device, dtype: torch.dtype, side: int = 512) -> Rate:
    """The rate of one square product at a time: quick even where `dtype` is slow."""
    a, b = torch.ones(2, side, side, dtype=dtype, device=device)
    return _rate(a, b, grain=0.0)


def _rate(a: Tensor, b: Tensor, grain: float) -> Rate:
    """Best of three readings, each of one product or of as many as `grain` operations need."""
    work = 2.0 * a.shape[0] * a.shape[1] * b.shape[1]
    repeats = max(1, min(64, round(grain / work)))

    def multiply() -> None:
        for _ in range(repeats):
            torch.mm(a, b)

    with torch.no_grad():
        times = [measure(multiply, a.device) for _ in range(3)]
    fastest = Time(min(t.wall for t in times), min(t.cpu for t in times))
    return Rate(repeats * work / fastest.wall, repeats * work / max(fastest.cpu, 1e-9))


class Rounds(NamedTuple):
    """What `run_rounds` measured."""

    steps: Mapping[str, list[Step]]
    """Steps by name of the work, one per round."""
    square: list[Rate]
    """Rate of square products around each round; empty without `gemm`."""
    narrow: list[Rate]
    """Rate of the narrow product around each round."""


def run_rounds(
    works: Sequence[Work], rounds: int, device: torch.device, gemm: Gemm | None = None
) -> Rounds:
    """Steps of all works in turn, `rounds` times after one step that does not count.

    Modules may draw random numbers: round r has the same seed for each work.
    """
    steps: dict[str, list[Step]] = {work.name: [] for work in works}
    square, narrow = [], []
    for work in works:
        timed_step(work, device, seed=0)
    if gemm is not None:
        square.append(gemm.square())
        narrow.append(gemm.narrow())
    for number in range(rounds):
        for work in works if number % 2 == 0 else reversed(works):
            steps[work.name].append(timed_step(work, device, seed=1 + number))
        if gemm is not None:
            square.append(gemm.square())
            narrow.append(gemm.narrow())
    return Rounds(steps, _between(square), _between(narrow))


def timed_step(work: Work, device: torch.device, seed: int) -> Step:
    """One forward and backward pass of `work`."""
    torch.manual_seed(seed)
    work.clear()
    results: list[Tensor] = []
    forward = measure(lambda: results.append(work.forward()), device)
    return Step(forward, measure(lambda: work.backward(results.pop()), device))


def _between(rates: Sequence[Rate]) -> list[Rate]:
    """The rate of each round: the mean of those before and after it."""
    return [Rate((a.wall + b.wall) / 2, (a.cpu + b.cpu) / 2) for a, b in pairwise(rates)]
