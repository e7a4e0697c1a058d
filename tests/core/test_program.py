"""What a user's file or option can cause is one line; a fault of the program is not hidden."""

import json
import pickle
import tomllib
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from dualasr_lib.core.program import USERS_ERRORS, is_users_error, one_line, run_program


def _nested() -> None:
    json.loads("[" * 100_000)


def _unpickled() -> None:
    pickle.loads(b"no pickle")


def _unzipped(folder: Path) -> None:
    (folder / "x").write_bytes(b"no zip")
    zipfile.ZipFile(folder / "x")


CAUSES: dict[str, Callable[[Path], object]] = {
    "a value": lambda _: int("x"),
    "bytes that are no text": lambda _: b"\xff".decode(),
    "text of another encoding": lambda _: "\ud800".encode(),
    "JSON": lambda _: json.loads("{"),
    "TOML": lambda _: tomllib.loads("= 1"),
    "no such file": lambda folder: (folder / "none").read_bytes(),
    "a folder": lambda folder: folder.read_bytes(),
    "no space left": lambda _: Path("/dev/full").write_bytes(b"x"),
    "a library that is missing": lambda _: __import__("no_such_library"),
    "a pickle that was cut short": lambda _: pickle.loads(b""),
    "damaged compression": lambda _: zlib.decompress(b"none"),
    "a damaged archive": _unzipped,
    "no pickle": lambda _: _unpickled(),
    "nested without end": lambda _: _nested(),
    "no memory": lambda _: bytearray(1 << 62),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_what_files_and_options_cause_is_one_line(
    cause: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        run_program(lambda: CAUSES[cause](tmp_path) and None)
    assert exited.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert ": error: " in line
    assert line.rpartition(": error: ")[2]


def test_every_kind_in_the_list_is_tried(tmp_path: Path) -> None:
    found = set()
    for cause in CAUSES.values():
        with pytest.raises(Exception) as error:
            cause(tmp_path)
        found |= {kind for kind in USERS_ERRORS if isinstance(error.value, kind)}
    assert found == set(USERS_ERRORS)


@pytest.mark.parametrize("error", [KeyError("a"), AssertionError(), TypeError(), RuntimeError("x")])
def test_a_fault_of_the_program_is_not_hidden(error: Exception) -> None:
    def main() -> None:
        raise error

    assert not is_users_error(error)
    with pytest.raises(type(error)):
        run_program(main)


def test_messages_of_many_lines_become_one() -> None:
    assert one_line(ValueError("a\n  b\n\nc ")) == "a b c"
    assert one_line(EOFError()) == "EOFError"
