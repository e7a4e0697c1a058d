"""Two processes make the update that one makes with the joined batch (gloo, torchrun)."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from dualasr_lib.training import checkpoint as checkpoints

_ROOT = Path(__file__).parents[2]
_PROGRAM = Path(__file__).with_name("two_ranks.py")

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch without distributed")


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(_ROOT), str(_PROGRAM.parent)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def _run_alone(directory: Path, *options: str) -> None:
    command = [sys.executable, str(_PROGRAM), str(directory), *options]
    subprocess.run(command, env=_environment(), check=True, timeout=120)


def _run_two(directory: Path, *options: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(_PROGRAM), str(directory), *options]
    ranks = []
    for rank in ("0", "1"):
        settings = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
        settings |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        ranks.append(subprocess.Popen(command, env=_environment() | settings))
    assert [process.wait(timeout=120) for process in ranks] == [0, 0]


def _model(directory: Path) -> dict[str, torch.Tensor]:
    path = checkpoints.newest(directory)
    assert path is not None
    return checkpoints.load(path).model


def _losses(directory: Path) -> dict[int, Any]:
    lines = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    return {
        line["step"]: (line["train/loss"], line["train/error"])
        for line in lines
        if "train/loss" in line
    }


def test_two_ranks_equal_one_with_the_joined_batch(tmp_path: Path) -> None:
    """Ranks have unequal shares (2 and 4 items); one is stopped half-way and resumed."""
    _run_alone(tmp_path / "one")
    _run_two(tmp_path / "two", "--steps", "7")
    _run_two(tmp_path / "two")
    one, two = _model(tmp_path / "one"), _model(tmp_path / "two")
    assert one.keys() == two.keys()  # no trace of DDP
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-9, atol=1e-9)
    losses, expected = _losses(tmp_path / "two"), _losses(tmp_path / "one")
    assert list(losses) == list(range(1, 13))
    for step, values in expected.items():
        assert losses[step] == pytest.approx(values, rel=1e-9)
