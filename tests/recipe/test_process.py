"""Messages of other programs: one line, and all of it in a file."""

import sys
from pathlib import Path

import pytest

from dualasr_lib.core.program import told_by
from dualasr_lib.recipe.process import run_program
from dualasr_lib.recipe.stage import PrepareError


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("", "no message"),
        ("one\ntwo\n\n", "two"),
        ("Traceback:\n File x\na.b.AudioError: no\n[extra info] f\n", "a.b.AudioError: no"),
        ("bad magic\n[extra info] When calling: load(a,\nb" + "x" * 5000, "bad magic"),
        ("ValueError: first\nDuring handling:\nOSError: second\n", "OSError: second"),
        ("x" * 1000, "x" * 300 + " ..."),
    ],
)  # fmt: skip
def test_one_line(message: str, expected: str) -> None:
    assert told_by(message) == expected


def test_a_failing_program_is_one_line_and_a_log(tmp_path: Path) -> None:
    log = tmp_path / "report" / "it.log"
    source = "import sys; print('dump ' * 9000, file=sys.stderr); raise ValueError('of the user')"
    with pytest.raises(PrepareError) as caught:
        run_program([sys.executable, "-c", source], log)
    message = str(caught.value)
    assert "\n" not in message
    assert "failed: ValueError: of the user" in message
    assert str(log) in message
    assert log.read_text(encoding="utf-8").count("dump") > 9000
    assert run_program([sys.executable, "-c", "print(3)"], log) == "3\n"
    assert not log.exists()
