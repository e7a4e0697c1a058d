"""A tiny run of `fit`: imported by tests, and a program that can be killed.

python tiny_run.py DIRECTORY [--steps N] [--kill-at-step K] [--kill-in-save K] [--moment M]
    [--sleep S] [--save-every N] [--disk-full-at-step K]
"""

import argparse
import os
import resource
import signal
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dualasr_lib.core import archive
from dualasr_lib.training.contract import FitResult, Run, Share, StepResult, Term, Validation
from dualasr_lib.training.distributed import World, process_group
from dualasr_lib.training.fit_config import FitConfig
from dualasr_lib.training.loop import fit
from dualasr_lib.training.optim import OptimConfig
from dualasr_lib.training.schedule import ScheduleConfig

__all__ = [
    "TOO_MUCH",
    "GreedyBackward",
    "OptimConfig",
    "TinyBatch",
    "TinyBatches",
    "exhaust_memory",
    "flip_a_bit",
    "objective",
    "tiny_config",
    "tiny_fit",
    "tiny_model",
]

BATCHES_PER_EPOCH = 7
TOO_MUCH = 2**50
"""Bytes that no address space holds: asking for them fails at once and harms nobody."""


class TinyBatch(NamedTuple):
    """Inputs (N, 5) and targets (N, 1)."""

    inputs: Tensor
    targets: Tensor
    ids: tuple[str, ...]

    def to(self, device: torch.device) -> "TinyBatch":
        return TinyBatch(self.inputs.to(device), self.targets.to(device), self.ids)


class TinyBatches:
    """Batches that follow from (epoch, number), with noise from torch's global generator."""

    def __init__(self, num_batches: int = BATCHES_PER_EPOCH, size: int = 6) -> None:
        self._num_batches, self._size = num_batches, size
        self._epoch = self._position = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch, self._position = epoch, 0

    def __iter__(self) -> Iterator[TinyBatch]:
        while self._position < self._num_batches:
            generator = torch.Generator().manual_seed(1000 * self._epoch + self._position)
            inputs = torch.randn(self._size, 5, generator=generator)
            targets = inputs[:, :1].tanh() + 0.01 * torch.randn(self._size, 1)
            name = f"epoch{self._epoch}-batch{self._position}"
            self._position += 1
            yield TinyBatch(inputs, targets, (name,))

    def state_dict(self) -> dict[str, Any]:
        return {"position": self._position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._position = state["position"]


def tiny_model() -> nn.Module:
    """A net with dropout (uses randomness) and batch normalisation (has buffers)."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 1)
    )


def objective(model: nn.Module, batch: TinyBatch) -> StepResult:
    """Mean squared error, with its sum as a logged term."""
    errors = (model(batch.inputs) - batch.targets).square()
    count = float(errors.numel())
    return StepResult(
        errors.mean(), {"error": Term(errors.sum(), count)}, weight=count, signal_seconds=1.5
    )


def exhaust_memory() -> None:
    """Raises what torch's allocator itself raises."""
    torch.empty(TOO_MUCH, dtype=torch.uint8)


class GreedyBackward(torch.autograd.Function):
    """Identity whose backward pass wants too much memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        exhaust_memory()


def validate(model: nn.Module, turn: int, share: Share) -> Validation:
    """Error on fixed data; draws random numbers, which must not disturb the training."""
    torch.randn(3)
    inputs = torch.linspace(-1, 1, 20).reshape(4, 5)[share.rank :: share.size]
    errors = sum(share.gather(float(model(inputs).square().sum())))
    return Validation({"error": errors / 4}, {"example": "あいう"})


def tiny_config(**changes: Any) -> FitConfig:
    """40 steps (nearly 6 epochs), checkpoints every 3, a log point each step."""
    settings: dict[str, Any] = {
        "max_steps": 40,
        "log_every": 1,
        "save_every": 3,
        "average_period": 2,
        "schedule": ScheduleConfig(warmup_batches=5.0),
        **changes,
    }
    return FitConfig(**settings)


def tiny_fit(directory: Path, **options: Any) -> FitResult:
    """Runs `fit`; `options` replace its arguments, and those of `tiny_config`."""
    call = {
        "model": options.pop("model", None) or tiny_model(),
        "objective": options.pop("objective", objective),
        "batches": options.pop("batches", None) or TinyBatches(),
        "validate": options.pop("validate", validate),
        "on_step": options.pop("on_step", None),
    }
    run = Run(
        directory=directory,
        config=options.pop("config", {"name": "tiny"}),
        fingerprints=options.pop("fingerprints", {"tokenizer": "abc"}),
        world=options.pop("world", World()),
    )
    return fit(**call, run=run, config=tiny_config(**options))


def flip_a_bit(path: Path) -> None:
    """Damages the largest member of a checkpoint, in its middle: torch itself does not look."""
    with zipfile.ZipFile(path) as archive:
        member = max(archive.infolist(), key=lambda info: info.file_size)
        content = archive.read(member)
    data = bytearray(path.read_bytes())
    data[data.index(content, member.header_offset) + len(content) // 2] ^= 1
    path.write_bytes(data)


def _kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_in_save(number: int, moment: str) -> None:
    """Arms a SIGKILL at a moment of the `number`-th checkpoint: writing, renaming or renamed."""
    write, replace, saves = archive.write, os.replace, [0]

    def counted(tree: Any, path: Path) -> None:
        saves[0] += 1
        write(tree, path)

    def replace_or_die(source: Any, target: Any) -> None:
        if saves[0] == number and moment == "renaming":
            _kill_self()
        replace(source, target)
        if saves[0] == number and moment == "renamed":
            _kill_self()

    class DyingWriter(archive._Writer):
        def write(self, data: bytes) -> int:
            if saves[0] == number and moment == "writing" and len(data) > 400:
                self._file.write(data[: len(data) // 2])
                self._file.flush()
                _kill_self()
            return super().write(data)

    archive.write = counted
    archive.os.replace = replace_or_die
    archive._Writer = DyingWriter  # type: ignore[misc]


def _fill_disk() -> None:
    """From now on the kernel refuses files as large as a checkpoint (17 kB); the logs are less."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (14_000, 14_000))


def _hook(kill_at: int, sleep: float, full_at: int) -> Callable[[int], None]:
    def on_step(step: int) -> None:
        if step == full_at:
            _fill_disk()
        print(f"step {step}", flush=True)
        time.sleep(sleep)
        if step == kill_at:
            _kill_self()

    return on_step


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--kill-at-step", type=int, default=-1)
    parser.add_argument("--kill-in-save", type=int, default=0)
    parser.add_argument("--moment", default="renaming")
    parser.add_argument("--save-every", type=int, default=3)
    parser.add_argument("--sleep", type=float, default=0.0)
    parser.add_argument("--disk-full-at-step", type=int, default=-1)
    args = parser.parse_args()
    if args.kill_in_save:
        _kill_in_save(args.kill_in_save, args.moment)
    torch.set_num_threads(1)
    with process_group(torch.device("cpu"), 60.0) as world:
        result = tiny_fit(
            args.directory,
            max_steps=args.steps,
            save_every=args.save_every,
            world=world,
            on_step=_hook(args.kill_at_step, args.sleep, args.disk_full_at_step),
        )
    print(f"finished {result.finished} at {result.step}", file=sys.stderr)


if __name__ == "__main__":
    main()
