"""tools/setup.sh on machines that lack something: one clear line, before anything is downloaded.

A machine is imitated by a PATH that holds only some programs, and stand-ins for others. Left out:
real installations, which tools/setup.sh proves itself.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAMS = (
    "awk bash cat cp cut df dirname env find grep id mkdir mktemp mv nproc rm sed setsid sh"
    " sha256sum sleep tac uname"
)

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or sys.version_info[:2] != (3, 11), reason="the default lane's machines"
)


class Machine:
    """A clone of the set-up files and a PATH of chosen programs."""

    def __init__(self, folder: Path) -> None:
        self.clone = folder / "a clone"
        self.bin = folder / "bin"
        self.home = folder / "home"
        self.bin.mkdir()
        self.home.mkdir()
        shutil.copytree(ROOT / "tools", self.clone / "tools")
        shutil.copy(ROOT / "pyproject.toml", self.clone)
        for program in PROGRAMS.split():
            self.have(program)

    def have(self, program: str) -> None:
        path = shutil.which(program)
        assert path is not None, f"this test needs {program}"
        (self.bin / program).symlink_to(path)

    def fake(self, program: str, script: str) -> None:
        path = self.bin / program
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def have_python(self) -> None:
        self.fake("python3.11", f'exec "{sys._base_executable}" "$@"')  # type: ignore[attr-defined]

    def setup(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(self.clone / "tools" / "setup.sh"), *arguments],
            env={"PATH": str(self.bin), "HOME": str(self.home), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def _assert_refused(result: subprocess.CompletedProcess[str], *names: str) -> None:
    assert result.returncode != 0
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for name in names:
        assert name in result.stderr


def test_no_python(machine: Machine) -> None:
    _assert_refused(machine.setup(), "Python 3.11", "install", "DUALASR_PYTHON")
    assert not (machine.clone / ".venv").exists()


def test_another_python_is_not_enough(machine: Machine) -> None:
    machine.fake("python3", "exit 1")  # what `sys.exit(version != 3.11)` does
    _assert_refused(machine.setup(), "Python 3.11")


def test_python_without_venv(machine: Machine) -> None:
    machine.fake("python3.11", 'case "$2" in *ensurepip*) exit 1 ;; esac; exit 0')
    _assert_refused(machine.setup(), "ensurepip", "python3.11-venv")


@pytest.mark.parametrize("missing", ["g++", "make"])
def test_no_compiler(machine: Machine, missing: str) -> None:
    machine.have_python()
    for tool in {"g++", "make"} - {missing}:
        machine.fake(tool, "exit 0")
    _assert_refused(machine.setup(), missing, "kaldifeat", "apt-get install g++ make")
    assert not (machine.clone / ".venv").exists()


def test_no_disk_space(machine: Machine) -> None:
    machine.have_python()
    machine.fake("df", "echo header; echo /dev/x 9 8 3145728 9% /")  # 3 GB
    _assert_refused(machine.setup(), "8 GB", "there are 3")


def test_another_platform(machine: Machine) -> None:
    machine.fake("uname", 'case "$1" in -s) echo Darwin ;; *) echo arm64 ;; esac')
    _assert_refused(machine.setup(), "Darwin arm64", "--torch2")


def test_unknown_option(machine: Machine) -> None:
    _assert_refused(machine.setup("--torch3"), "--torch3", "--torch2")


def test_help(machine: Machine) -> None:
    result = machine.setup("--help")
    assert result.returncode == 0
    assert "tools/setup.sh --torch2" in result.stdout


def test_no_network_names_the_step_and_the_log(machine: Machine) -> None:
    machine.have_python()
    result = machine.setup("--torch2", PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull)
    _assert_refused(result, "pip failed", "pip==25.3", "setup.log")
    assert not (machine.clone / ".venv-torch2" / "dualasr-setup").exists()


def test_env_sets_what_is_unset_and_nothing_else(machine: Machine) -> None:
    script = 'source "$1/tools/env.sh"; source "$1/tools/env.sh"; env'
    result = subprocess.run(
        ["bash", "-euc", script, "x", str(machine.clone)],
        env={"PATH": str(machine.bin), "OMP_NUM_THREADS": "3", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=True,
    )
    settings = dict(line.split("=", 1) for line in result.stdout.splitlines() if "=" in line)
    assert settings["OMP_NUM_THREADS"] == settings["MKL_NUM_THREADS"] == "3"
    assert settings["LC_ALL"] == "C"
    assert settings["PYTHONUTF8"] == "1"
    assert settings["PATH"] == f"{machine.clone}/.venv/bin:{machine.bin}"
    assert len(result.stderr.splitlines()) == 1
    assert "MKL_NUM_THREADS=3" in result.stderr
    assert "OMP_NUM_THREADS" not in result.stderr
