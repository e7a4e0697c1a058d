"""One run per folder, and a folder that is free as soon as its run is dead."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_run

from dualasr_lib.training.lock import sole_run

_ROOT = Path(__file__).parents[2]
_PROGRAM = Path(__file__).with_name("tiny_run.py")


def _start(directory: Path, *options: object) -> "subprocess.Popen[str]":
    path = os.pathsep.join([str(_ROOT), str(_PROGRAM.parent)])
    command = [sys.executable, str(_PROGRAM), str(directory), *map(str, options)]
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    first = _start(tmp_path, "--sleep", 1.0)
    assert first.stdout is not None
    assert first.stdout.readline() == "step 0\n"
    before = (tmp_path / "log.jsonl").stat().st_ino
    with pytest.raises(ValueError, match=r"one run at a time, but another .*tmp.* holds \.lock"):
        tiny_run.tiny_fit(tmp_path)
    assert tiny_run.tiny_fit(tmp_path / "another", max_steps=1).finished
    assert first.poll() is None
    assert (tmp_path / "log.jsonl").stat().st_ino == before
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert tiny_run.tiny_fit(tmp_path, max_steps=2).finished  # death has freed the folder


def test_leaving_frees_the_folder_and_other_ranks_lock_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        with sole_run(tmp_path / "new", tiny_run.World()):
            assert (tmp_path / "new/.lock").exists()
    with sole_run(tmp_path / "other", tiny_run.World(rank=1)):
        assert not (tmp_path / "other").exists()
