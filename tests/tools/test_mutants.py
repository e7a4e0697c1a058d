"""tools/analysis/mutants.py: its list fits the code, and it tells faults found from survivors."""

import re
import sys
from pathlib import Path

import pytest
from analysis import mutants
from analysis.mutants import Fault, copy_tree, plant, read_faults, try_fault, unmet

from dualasr_lib.core.program import run_program

ROOT = Path(__file__).parents[2]
FAULTS = read_faults(ROOT / "tools" / "analysis" / "faults.toml")
UNITS = "tests/metrics/test_error_rate.py"


def fault(old: str, new: str, *tests: str, file: str = "dualasr_lib/metrics/units.py") -> Fault:
    return Fault(what="a fault", file=file, old=old, new=new, tests=tests)


def test_every_text_stands_in_its_file_once() -> None:
    assert len(FAULTS) >= 20
    assert unmet(FAULTS, ROOT) == []
    assert len({item.what for item in FAULTS}) == len(FAULTS)
    assert all(item.old != item.new for item in FAULTS)


def test_a_text_that_is_not_there_once_is_told() -> None:
    found = unmet([fault("return", "", UNITS), fault("no such text", "", UNITS)], ROOT)
    assert [re.sub(r".*does", "does", line) for line in found] == [
        "does 4 times",
        "does 0 times",
    ]


@pytest.mark.parametrize("test", sorted({test for item in FAULTS for test in item.tests}))
def test_every_named_test_is_there(test: str) -> None:
    path, _, name = test.partition("::")
    assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")


def test_faults_are_found_or_survive(tmp_path: Path) -> None:
    """In the copy; one that makes no difference survives, and so does one that nothing can run."""
    copy_tree(tmp_path)
    wer = next(item for item in FAULTS if item.what == "WER: in characters")
    assert try_fault(wer, tmp_path).missed == ()
    assert (tmp_path / wer.file).read_text() == (ROOT / wer.file).read_text()
    counts, words = f"{UNITS}::test_counts", f"{UNITS}::test_words_are_counted_whole"
    assert try_fault(fault(wer.old, wer.new, counts, words), tmp_path).missed == (counts,)
    broken = fault(wer.old, "return (", words)
    assert try_fault(broken, tmp_path).missed == (words,)


def _interrupted(path: Path) -> None:
    assert path.read_text() == "one three\n"
    raise KeyboardInterrupt


def test_a_fault_is_taken_out_again(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two\n")
    planted = plant(fault("two", "three", UNITS, file="a.txt"), tmp_path)
    with pytest.raises(KeyboardInterrupt), planted:
        _interrupted(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "one two\n"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('file = "README.md"\nold = "the"', "the text must stand in README.md once, but does "),
        ('file = "no.py"\nold = "the"', "the text must stand in no.py once, but does 0 times"),
    ],
)
def test_a_list_that_does_not_fit_is_one_line(
    lines: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "faults.toml"
    path.write_text(f'[[fault]]\nwhat = "it"\n{lines}\nnew = ""\ntests = ["a::b"]\n')
    monkeypatch.setattr(sys, "argv", ["mutants.py", "--faults", str(path)])
    with pytest.raises(SystemExit) as stopped:
        run_program(mutants.main)
    assert stopped.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
