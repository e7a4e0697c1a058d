#!/usr/bin/env python3
"""What it costs that several processes train together: gradients summed after the backward pass,
and while it runs.

    tools/bench_ranks.py [--config egs/csj/conf/demo.toml] [--ranks 2 4] [--seconds 10] [--steps 8]
    tools/bench_ranks.py --paper 159.7 --compute 0.5        (machines that are not here, computed)

Each process trains the joint model of --config on a batch of --seconds of noise, one thread each.
Three ways take turns: nothing is sent; gradients are summed afterwards (one message of 64 MiB of
float32 at a time, as this project did before); DistributedDataParallel (`training/exchange.py`).
"exposed" is what a step takes longer than without sending, in milliseconds.

More processes than cores make every number worse, that of "nothing is sent", too.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dualasr_lib.core.program import run_program
from dualasr_lib.core.table import markdown
from dualasr_lib.training.launch import run_processes

if TYPE_CHECKING:
    from torch import nn

    from dualasr_lib.training.distributed import World

_ROOT = Path(__file__).resolve().parents[1]
_HEAD = ("processes", "MB sent per step", "way", "step ms", "exposed ms")
_WARM_UP = 2  # steps that are not counted
_FLAT = 2**24  # elements of one message of the old way


def main() -> None:
    arguments = _read()
    if arguments.paper:
        print(_on_paper(arguments.paper * 1e6, arguments.compute))
        return
    if "WORLD_SIZE" in os.environ:
        _rank(arguments)
        return
    for number, count in enumerate(arguments.ranks):
        environment = {**os.environ, "OMP_NUM_THREADS": str(count), "MKL_NUM_THREADS": str(count)}
        if number:
            environment["DUALASR_NO_HEAD"] = "1"
        code = run_processes([sys.executable, *sys.argv], count, environment)
        if code:
            sys.exit(code)


def _rank(arguments: argparse.Namespace) -> None:
    import torch

    from dualasr_lib.training.distributed import process_group

    torch.set_num_threads(1)
    with process_group(torch.device("cpu"), 120.0) as world:
        ways, size = _ways(arguments, world)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(_WARM_UP + arguments.steps):
            for name, step in ways.items():
                torch.distributed.barrier()
                begun = time.perf_counter()
                step()
                if number >= _WARM_UP:
                    times[name].append(time.perf_counter() - begun)
        if not world.is_main:
            return
        middle = {name: 1000 * statistics.median(found) for name, found in times.items()}
        alone = next(iter(middle.values()))
        sent = f"{2 * (world.size - 1) / world.size * size / 1e6:.1f}"
        rows = [
            (world.size, sent, name, f"{ms:.0f}", f"{ms - alone:.0f}")
            for name, ms in middle.items()
        ]
        table = markdown([_HEAD, *(tuple(map(str, row)) for row in rows)]).splitlines()
        print("\n".join(table[2:] if "DUALASR_NO_HEAD" in os.environ else table), flush=True)


def _ways(
    arguments: argparse.Namespace, world: "World"
) -> tuple[dict[str, Callable[[], None]], int]:
    """A step of each way, and bytes of gradients."""
    from bench.joint import build_joint, joint_work
    from bench.workloads import Setting
    from torch import nn

    from dualasr_lib.training.contract import StepResult
    from dualasr_lib.training.exchange import Exchange

    setting = Setting(config=arguments.config, utterances=2, seconds=arguments.seconds / 2)
    model, loss = build_joint(setting)
    forward = joint_work(model, loss, setting, "joint").forward

    def objective(model: nn.Module, batch: object) -> StepResult:
        return StepResult(forward(), {}, weight=1.0)

    exchange = Exchange(model, objective, world)

    def nothing() -> None:
        model.zero_grad(set_to_none=True)
        forward().backward()

    def afterwards() -> None:
        nothing()
        _sum_gradients(model)

    def meanwhile() -> None:
        model.zero_grad(set_to_none=True)
        with exchange.sending(last=True):
            exchange.pass_of(None).loss.backward()

    size = sum(4 * p.numel() for p in model.parameters() if p.requires_grad)
    names = ("nothing is sent", "after the backward pass", "while it runs")
    return dict(zip(names, (nothing, afterwards, meanwhile))), size


def _sum_gradients(model: "nn.Module") -> None:
    """The old way, for comparison."""
    import torch

    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    for part in flat.split(_FLAT):
        torch.distributed.all_reduce(part)
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts):
        gradient.copy_(part.view_as(gradient))


def _on_paper(weights: float, compute: float, machines: int = 4, gpus: int = 8) -> str:
    """A ring over machines, each with `gpus` behind one link: 2 (M - 1) / M of the gradients pass
    each link. Gradients are there during the backward pass, two thirds of a step."""
    rows = [
        ("Gb/s", "s to send", "step after the backward pass", "step while it runs", "efficiency")
    ]
    for gigabits in (25.0, 200.0):  # out of a machine
        seconds = 2 * (machines - 1) / machines * weights * 4 * 8 / (gigabits * 1e9)
        after = compute + seconds
        during = compute + max(0.0, seconds - 2 / 3 * compute)
        rows.append(
            (f"{gigabits:g}", f"{seconds:.3f}", f"{after:.3f}", f"{during:.3f}",
             f"{compute / after:.0%}, {compute / during:.0%}")
        )  # fmt: skip
    title = f"{machines} machines of {gpus} GPUs, {weights / 1e6:.1f} M weights"
    return f"{title}, {compute:g} s a step alone\n\n{markdown(rows)}"


def _read() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--config", type=Path, default=_ROOT / "egs/csj/conf/demo.toml")
    options.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    options.add_argument("--seconds", type=float, default=10.0, help="of audio, each process")
    options.add_argument("--steps", type=int, default=8, help="that are counted")
    options.add_argument("--paper", type=float, metavar="M", help="millions of weights")
    options.add_argument("--compute", type=float, default=0.5, help="seconds of a step alone")
    return options.parse_args()


if __name__ == "__main__":
    run_program(main)
