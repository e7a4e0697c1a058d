"""tools/setup/check_setup.py: names and exit code, if a package fails or has another version."""

import os
import sys
from pathlib import Path

import pytest

from tools.setup import check_setup


def _broken(_: Path) -> str:
    os.write(1, b"chatter on the way")  # below sys.stdout, as C++ code does
    raise RuntimeError("wrong answer\nsecond line")


def _good(folder: Path) -> str:
    os.write(1, b"chatter on the way")  # below sys.stdout, as C++ code does
    return f"a folder: {folder.is_dir()}"


@pytest.fixture
def lane(monkeypatch: pytest.MonkeyPatch) -> dict[str, check_setup.Proof]:
    """A lane of its own proofs, with no pins."""
    proofs: dict[str, check_setup.Proof] = {"pytest": _good}
    monkeypatch.setitem(check_setup.PROOFS, "torch2", proofs)
    monkeypatch.setattr(check_setup, "pins", lambda lane: {})
    return proofs


def test_what_works_is_listed_with_its_version(
    lane: dict[str, check_setup.Proof], capfd: pytest.CaptureFixture[str]
) -> None:
    assert check_setup.main(["--lane", "torch2"]) == 0
    output = capfd.readouterr()
    assert output.err == ""
    assert output.out.splitlines()[-1].split() == [
        "pytest",
        pytest.__version__,
        "a",
        "folder:",
        "True",
    ]
    assert "chatter" not in output.out


def test_what_fails_is_named_and_its_chatter_shown(
    lane: dict[str, check_setup.Proof], capfd: pytest.CaptureFixture[str]
) -> None:
    lane["nothing"] = _broken
    assert check_setup.main(["--lane", "torch2"]) == 1
    output = capfd.readouterr()
    assert output.out.splitlines()[-1].split(maxsplit=2) == [
        "nothing",
        "-",
        "FAILED: RuntimeError: wrong answer",
    ]
    assert "chatter on the way" in output.err


def test_another_version_than_the_pinned_one_fails(
    lane: dict[str, check_setup.Proof], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_setup, "pins", lambda lane: {"pytest": "0.1", "no-such-package": "3"})
    rows = {row.name: row.proof for row in check_setup.check("torch2")}
    assert rows["no-such-package"] == "FAILED: 3 is pinned"
    assert rows["pytest"] == "FAILED: 0.1 is pinned"


def test_pins_are_read_from_the_requirement_files() -> None:
    default, torch2 = check_setup.pins("default"), check_setup.pins("torch2")
    assert default["torch"] == "1.13.1"
    assert default["k2"] == "1.23.4"
    assert default["kaldifeat"] == "1.24"
    assert torch2["torch"].startswith("2.")
    assert not {"k2", "kaldifeat"} & set(torch2)


def test_this_environment_is_one_of_the_lanes() -> None:
    """Whatever the tests run on, torch is the pinned one (its local part, "+cpu", apart)."""
    torch = pytest.importorskip("torch").__version__.split("+")[0]
    assert torch in {check_setup.pins(lane)["torch"] for lane in check_setup.PROOFS}
    assert sys.version_info >= (3, 11)
