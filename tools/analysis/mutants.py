#!/usr/bin/env python3
"""Plants known faults, one at a time, and sees whether the named tests fail.

    tools/analysis/mutants.py [--only WORD ...] [--faults FILE.toml]

tools/analysis/faults.toml lists the faults: a file, a text that stands in it once, what takes its
place, and the tests that must then fail. They are planted in a temporary copy of the tree, never in
the checkout. First all named tests must pass there without a fault. Exit code 1 if a fault
survives: if one of its tests passes, or cannot be run.
"""

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from dualasr_lib.core.config import load
from dualasr_lib.core.program import run_program
from dualasr_lib.core.table import markdown

__all__ = [
    "Fault",
    "Outcome",
    "Ran",
    "copy_tree",
    "plant",
    "read_faults",
    "run_tests",
    "try_fault",
    "unmet",
]

_ROOT = Path(__file__).resolve().parents[2]
_COPIED = ("dualasr_lib", "egs", "tests", "tools", "README.md", "pyproject.toml")
_TIMEOUT = 900


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One change of one file, and what must notice it."""

    what: str
    file: str
    """Relative to the root of the repository."""
    old: str
    """Stands there exactly once."""
    new: str
    tests: tuple[str, ...]
    """Each must fail, with any of its parameters."""

    def __post_init__(self) -> None:
        if not self.tests:
            raise ValueError(f"fault '{self.what}' must name a test, but names none")


@dataclass(frozen=True, kw_only=True)
class _List:
    fault: tuple[Fault, ...] = field(default=())


class Ran(NamedTuple):
    """What came of some tests."""

    state: str
    """passed, failed, could not be run, died, took too long."""
    failed: tuple[str, ...]
    """Those that ran and failed, with their parameters."""


class Outcome(NamedTuple):
    """What a fault came to."""

    fault: Fault
    missed: tuple[str, ...]
    """Tests that did not fail; none if it was found."""
    seconds: float


def read_faults(path: Path) -> tuple[Fault, ...]:
    """The faults of a TOML file.

    Raises:
        ValueError: it is missing or damaged.
    """
    return load(_List, path).fault


def unmet(faults: Iterable[Fault], root: Path) -> list[str]:
    """What keeps faults from being planted under `root`: a text that does not stand in its file
    exactly once.
    """
    found = []
    for fault in faults:
        path = root / fault.file
        count = path.read_text(encoding="utf-8").count(fault.old) if path.is_file() else 0
        if count != 1:
            found.append(
                f"'{fault.what}': the text must stand in {fault.file} once, but does {count} times"
            )
    return found


@contextmanager
def plant(fault: Fault, root: Path) -> Iterator[None]:
    """The fault is in the tree under `root` as long as this lasts."""
    path = root / fault.file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(text, encoding="utf-8")


def copy_tree(target: Path) -> None:
    """What the tests need of this repository."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in _COPIED:
        source = _ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=ignored)
        else:
            shutil.copy(source, target / name)


def try_fault(fault: Fault, root: Path) -> Outcome:
    """Plants it in the copy under `root` and runs its tests."""
    begun = time.monotonic()
    with plant(fault, root):
        ran = run_tests(fault.tests, root)
    missed = tuple(test for test in fault.tests if not any(_is_of(test, f) for f in ran.failed))
    return Outcome(fault, missed, time.monotonic() - begun)


def _is_of(test: str, found: str) -> bool:
    """Whether `found` is that test, with or without parameters."""
    return found == test or found.startswith(f"{test}[")


def run_tests(tests: Sequence[str], root: Path) -> Ran:
    """Runs them in a fork, with the package and the tests of the tree under `root`.

    What is heavy (torch) is imported here, once for all forks; the package is not.
    """
    import pytest  # noqa: F401
    import torch  # noqa: F401

    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_in_fork, args=(tests, root, sender))
    child.start()
    sender.close()
    try:
        ran = Ran(*receiver.recv()) if receiver.poll(_TIMEOUT) else Ran("took too long", ())
    except EOFError:
        ran = Ran("died", ())
    child.kill()
    child.join()
    return ran


def _in_fork(tests: Sequence[str], root: Path, sender: Connection) -> None:
    import pytest

    sys.dont_write_bytecode = True  # a fault of the same length may be planted within a second
    for name, module in list(sys.modules.items()):
        if _is_copied(getattr(module, "__file__", None)):
            del sys.modules[name]
    sys.path.insert(0, str(root))
    os.environ["PYTHONPATH"] = str(root)
    os.chdir(root)
    listener = _Listener()
    options = ("-q", "--tb=short", "-p", "no:cacheprovider")
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        code = pytest.main([*options, *tests], plugins=[listener])
    state = "passed" if code == 0 else "failed" if code == 1 else "could not be run"
    sender.send((state, tuple(listener.failed)))


def _is_copied(file: str | None) -> bool:
    """Whether a module is of the checkout, so that the tests must import the one of the copy."""
    return file is not None and any(file.startswith(f"{_ROOT / name}/") for name in _COPIED)


class _Listener:
    """Hears from pytest which tests fail."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Called for set-up, call and tear-down of each test; only a call that fails counts."""
        if report.when == "call" and report.failed:
            self.failed.append(report.nodeid)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--faults", type=Path, default=Path(__file__).with_name("faults.toml"), metavar="FILE.toml")
    add("--only", nargs="+", metavar="WORD", help="faults with one of these words in what they are")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    faults = read_faults(arguments.faults)
    if arguments.only:
        faults = tuple(f for f in faults if any(word in f.what for word in arguments.only))
    if not faults:
        raise ValueError(f"no fault to plant: {arguments.faults} has none that fits --only")
    if reasons := unmet(faults, _ROOT):
        raise ValueError("; ".join(reasons))
    rows: list[tuple[str, ...]] = [("fault", "file", "found by", "verdict", "s")]
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        copy_tree(root)
        for tests in dict.fromkeys(fault.tests for fault in faults):
            if (state := run_tests(tests, root).state) != "passed":
                raise ValueError(f"without a fault all must pass, but {', '.join(tests)} {state}")
        for number, fault in enumerate(faults, start=1):
            outcome = try_fault(fault, root)
            survived += bool(outcome.missed)
            verdict = "SURVIVES" if outcome.missed else "found"
            print(f"{number}/{len(faults)} {verdict}: {fault.what}", file=sys.stderr, flush=True)
            names = ", ".join(test.partition("::")[2] for test in outcome.missed or fault.tests)
            rows.append((fault.what, fault.file, names, verdict, f"{outcome.seconds:.0f}"))
    print(markdown(rows))
    print(f"\n{len(faults) - survived} of {len(faults)} faults found")
    if survived:
        raise ValueError(f"{survived} of {len(faults)} faults survive: see the table")


if __name__ == "__main__":
    run_program(main)
