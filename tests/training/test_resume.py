"""A run that was stopped in any way and started again equals one that was not, bit by bit (CPU)."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
from torch import Tensor

from dualasr_lib.training import checkpoint as checkpoints

_ROOT = Path(__file__).parents[2]
_TIMES = ("train/steps_per_second", "train/signal_seconds_per_second")


class _Crash(Exception):
    """Stands for a sudden end."""


def _losses(directory: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in _TIMES} for line in lines]


def _state(directory: Path) -> dict[str, Tensor]:
    path = checkpoints.newest(directory)
    assert path is not None
    found = checkpoints.load(path)
    training = {k: v for k, v in found.training.items() if k != "meters"}
    return checkpoints.pack(found._replace(training=training)._asdict()).tensors


def _assert_same_run(directory: Path, expected: Path) -> None:
    assert _losses(directory) == _losses(expected)
    ours, theirs = _state(directory), _state(expected)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert different == []


def _start(directory: Path, *options: object) -> subprocess.Popen[str]:
    program = [sys.executable, str(Path(tiny_run.__file__)), str(directory)]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        program + [str(option) for option in options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a whole run, made in a process of its own."""
    directory = tmp_path_factory.mktemp("whole")
    process = _start(directory)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return directory


def test_killed_with_sigkill_again_and_again(uninterrupted: Path, tmp_path: Path) -> None:
    """Before the first checkpoint, in mid-epoch, and inside the writing of a checkpoint."""
    kills = [("--kill-at-step", 1), ("--kill-at-step", 17), ("--kill-in-save", 4)]
    for kill in kills:
        process = _start(tmp_path, *kill)
        process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL
    process = _start(tmp_path)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "going on from" in errors
    _assert_same_run(tmp_path, uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_exits_with_0(
    uninterrupted: Path, tmp_path: Path, number: signal.Signals
) -> None:
    process = _start(tmp_path, "--sleep", 0.05)
    assert process.stdout is not None
    while process.stdout.readline().strip() != "step 10":
        assert process.poll() is None
    process.send_signal(number)
    start = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert time.monotonic() - start < 30
    assert "finished False" in errors
    path = checkpoints.newest(tmp_path)
    assert path is not None
    assert checkpoints.load(path).step >= 11
    assert tiny_run.tiny_fit(tmp_path).finished
    _assert_same_run(tmp_path, uninterrupted)


@pytest.mark.parametrize("stop_at", [2, 6, 7, 8, 13, 21, 27, 38])
def test_crash_at_any_step(uninterrupted: Path, tmp_path: Path, stop_at: int) -> None:
    """In the step, so that the log is ahead of the checkpoint."""

    def on_step(step: int) -> None:
        if step == stop_at:
            raise _Crash

    with pytest.raises(_Crash):
        tiny_run.tiny_fit(tmp_path, on_step=on_step)
    tiny_run.tiny_fit(tmp_path)
    _assert_same_run(tmp_path, uninterrupted)


def test_signal_in_a_validation_breaks_it_off_and_it_is_made_up_for(
    uninterrupted: Path, tmp_path: Path
) -> None:
    def slow(model: torch.nn.Module) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    start = time.monotonic()
    result = tiny_run.tiny_fit(tmp_path, validate=slow)
    assert time.monotonic() - start < 30
    assert (result.step, result.epoch, result.finished) == (7, 1, False)
    tiny_run.tiny_fit(tmp_path)
    _assert_same_run(tmp_path, uninterrupted)


@pytest.mark.parametrize(
    "changes", [{"accumulate": 3}, {"optim": {"name": "adamw"}}, {"log_every": 5}]
)
def test_other_settings_resume_exactly_too(tmp_path: Path, changes: dict[str, Any]) -> None:
    if "optim" in changes:
        changes = {"optim": tiny_run.OptimConfig(**changes["optim"])}

    def on_step(step: int) -> None:
        if step == 10:
            raise _Crash

    tiny_run.tiny_fit(tmp_path / "whole", max_steps=16, **changes)
    with pytest.raises(_Crash):
        tiny_run.tiny_fit(tmp_path / "parts", max_steps=16, on_step=on_step, **changes)
    tiny_run.tiny_fit(tmp_path / "parts", max_steps=16, **changes)
    _assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    tiny_run.tiny_fit(tmp_path, max_steps=3)
    before = _losses(tmp_path)
    result = tiny_run.tiny_fit(tmp_path, max_steps=3)
    assert (result.step, result.finished) == (3, True)
    assert _losses(tmp_path) == before
