"""A run that was stopped in any way and started again equals one that was not, bit by bit (CPU)."""

import json
import os
import random
import re
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

from dualasr_lib.core import checkpoint as checkpoints
from dualasr_lib.core.packing import pack
from dualasr_lib.training.contract import Share

_ROOT = Path(__file__).parents[2]
_TIMES = ("train/steps_per_second", "train/signal_seconds_per_second", "train/data_wait")


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
    return pack(found._replace(training=training)._asdict()).tensors


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
    kills: list[tuple[object, ...]] = [("--kill-at-step", 1), ("--kill-at-step", 17)]
    kills += [("--kill-in-save", 2, "--moment", m) for m in ("writing", "renaming", "renamed")]
    for kill in kills:
        process = _start(tmp_path, *kill)
        process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL
    process = _start(tmp_path)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "going on from" in errors
    _assert_same_run(tmp_path, uninterrupted)


def test_killed_with_sigkill_at_any_moment(uninterrupted: Path, tmp_path: Path) -> None:
    """At moments drawn by chance, while it saves at every step; each time the newest file reads."""
    chance = random.Random(0)
    for number in range(5):
        process = _start(tmp_path, "--save-every", 1)
        assert process.stdout is not None
        while int(process.stdout.readline().split()[1]) < 6 * number + 2:
            assert process.poll() is None
        time.sleep(chance.uniform(0.0, 0.03))  # a step with its checkpoint takes about 10 ms
        process.kill()
        process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL
        path = checkpoints.newest(tmp_path)
        assert path is not None
        assert checkpoints.load(path).step >= 6 * number + 2
    assert tiny_run.tiny_fit(tmp_path).finished
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
    def slow(model: torch.nn.Module, turn: int, share: Share) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    start = time.monotonic()
    result = tiny_run.tiny_fit(tmp_path, validate=slow)
    assert time.monotonic() - start < 30
    assert (result.step, result.epoch, result.finished) == (7, 1, False)
    tiny_run.tiny_fit(tmp_path)
    _assert_same_run(tmp_path, uninterrupted)


def test_a_full_disk_ends_the_run_with_the_last_checkpoint_intact(
    uninterrupted: Path, tmp_path: Path
) -> None:
    process = _start(tmp_path, "--disk-full-at-step", 16)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    message = r"cannot write checkpoint .*step-18\.pt: File too large; .*is epoch-2-step-15\.pt"
    assert re.search(message, errors), errors
    assert not list(tmp_path.glob("*.tmp"))
    assert tiny_run.tiny_fit(tmp_path).finished  # there is room again
    _assert_same_run(tmp_path, uninterrupted)


@pytest.mark.parametrize(
    "changes",
    [{}, {"accumulate": 2}, {"dtype": "bfloat16"}, {"optim": tiny_run.OptimConfig(name="adamw")}],
    ids=["plain", "accumulate", "bfloat16", "adamw"],
)
def test_the_50_losses_after_a_resume_in_mid_epoch_are_the_same_bits(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    def on_step(step: int) -> None:
        if step == 34:
            raise _Crash

    tiny_run.tiny_fit(tmp_path / "whole", max_steps=90, **changes)
    with pytest.raises(_Crash):
        tiny_run.tiny_fit(tmp_path / "parts", max_steps=90, on_step=on_step, **changes)
    taken_up = checkpoints.newest(tmp_path / "parts")
    assert taken_up is not None
    assert "-step-" in taken_up.name
    step = checkpoints.load(taken_up).step
    tiny_run.tiny_fit(tmp_path / "parts", max_steps=90, **changes)
    losses = [
        [line["train/loss"] for line in _losses(tmp_path / name) if "train/loss" in line]
        for name in ("whole", "parts")
    ]
    assert len(losses[0]) == 90
    assert len(losses[0][step:]) >= 50
    assert losses[1] == losses[0]  # floats in JSON are exact
    _assert_same_run(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize("changes", [{"accumulate": 3}, {"log_every": 5}])
def test_other_settings_resume_exactly_too(tmp_path: Path, changes: dict[str, Any]) -> None:
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
