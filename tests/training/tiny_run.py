"""A tiny run of `fit`: imported by tests, and a program that can be killed.

python tiny_run.py DIRECTORY [--steps N] [--kill-at-step K] [--kill-in-save K] [--sleep S]
"""

import argparse
import os
import signal
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dualasr_lib.training import checkpoint as checkpoints
from dualasr_lib.training.contract import FitConfig, FitResult, Run, StepResult, Term, Validation
from dualasr_lib.training.distributed import World, process_group
from dualasr_lib.training.loop import fit
from dualasr_lib.training.optim import OptimConfig
from dualasr_lib.training.schedule import ScheduleConfig

__all__ = [
    "OptimConfig",
    "TinyBatches",
    "flip_a_bit",
    "objective",
    "tiny_config",
    "tiny_fit",
    "tiny_model",
]

BATCHES_PER_EPOCH = 7


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


def validate(model: nn.Module) -> Validation:
    """Error on fixed data; draws random numbers, which must not disturb the training."""
    torch.randn(3)
    inputs = torch.linspace(-1, 1, 20).reshape(4, 5)
    return Validation({"error": float(model(inputs).square().mean())}, {"example": "あいう"})


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


def _kill_in_save(number: int) -> None:
    """Arms a SIGKILL in the middle of the `number`-th checkpoint, before it is renamed."""
    replace, left = os.replace, [number]

    def replace_or_die(source: Any, target: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            _kill_self()
        replace(source, target)

    checkpoints.os.replace = replace_or_die  # type: ignore[attr-defined]


def _hook(kill_at: int, sleep: float) -> Callable[[int], None]:
    def on_step(step: int) -> None:
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
    parser.add_argument("--sleep", type=float, default=0.0)
    args = parser.parse_args()
    if args.kill_in_save:
        _kill_in_save(args.kill_in_save)
    torch.set_num_threads(1)
    with process_group(torch.device("cpu")) as world:
        result = tiny_fit(
            args.directory,
            max_steps=args.steps,
            world=world,
            on_step=_hook(args.kill_at_step, args.sleep),
        )
    print(f"finished {result.finished} at {result.step}", file=sys.stderr)


if __name__ == "__main__":
    main()
