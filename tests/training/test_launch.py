"""Processes that a program starts itself: what they are told, how they end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dualasr_lib.training.launch import run_processes

TELL = """
import os, sys
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "OMP_NUM_THREADS")
open(sys.argv[1] + os.environ["RANK"], "w").write(" ".join(os.environ[name] for name in names))
"""
ONE_FAILS = """
import os, sys, time
if os.environ["RANK"] == "1":
    sys.exit(7)
time.sleep(100)
"""
LAUNCHER = """
import os, sys
from dualasr_lib.training.launch import run_processes
sys.exit(run_processes([sys.executable, "-c", sys.argv[1], *sys.argv[2:]], 2, os.environ))
"""
SAVES = """
import os, signal, sys, time
def save(number, frame):
    open(sys.argv[1] + os.environ["RANK"], "a").write("saved")
    sys.exit(130)
signal.signal(signal.SIGTERM, save)
open(sys.argv[1] + os.environ["RANK"], "w").write(f"{os.getpid()} ")
time.sleep(100)
"""


def start(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", LAUNCHER, code, *arguments])


def wait_for(paths: list[Path], text: str) -> list[str]:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if all(path.exists() and text in path.read_text() for path in paths):
            return [path.read_text() for path in paths]
        time.sleep(0.05)
    raise AssertionError(f"{paths} do not say {text!r}")


def test_each_knows_its_place_and_gets_its_share_of_the_threads(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TELL, str(tmp_path / "rank")]
    assert run_processes(command, 2, os.environ | {"OMP_NUM_THREADS": "5"}) == 0
    for rank in ("0", "1"):
        assert (tmp_path / f"rank{rank}").read_text() == f"{rank} {rank} 2 127.0.0.1 2"


def test_one_that_fails_ends_the_others_at_once() -> None:
    begun = time.monotonic()
    assert run_processes([sys.executable, "-c", ONE_FAILS], 3, os.environ) == 7
    assert time.monotonic() - begun < 50


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_once_and_its_code_returned(
    tmp_path: Path, number: signal.Signals
) -> None:
    code = SAVES.replace("SIGTERM", number.name)
    files = [tmp_path / "rank0", tmp_path / "rank1"]
    launcher = start(code, str(tmp_path / "rank"))
    wait_for(files, " ")
    launcher.send_signal(number)
    assert launcher.wait(60) == 130
    assert all(text.count("saved") == 1 for text in wait_for(files, "saved"))


def test_none_is_left_behind_by_kill_9(tmp_path: Path) -> None:
    files = [tmp_path / "rank0", tmp_path / "rank1"]
    launcher = start(SAVES, str(tmp_path / "rank"))
    wait_for(files, " ")
    launcher.kill()
    launcher.wait(60)
    wait_for(files, "saved")


def test_no_process_is_refused() -> None:
    with pytest.raises(ValueError, match="processes must be 1 or more, got 0"):
        run_processes(["true"], 0, os.environ)
