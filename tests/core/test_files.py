"""Atomic writes: whole or not at all, side by side with others, and clean after a kill."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dualasr_lib.core.files import (
    OutputError,
    new_folder,
    output_file,
    output_folder,
    write_atomically,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_and_its_folder_appear(tmp_path: Path) -> None:
    write_atomically(tmp_path / "new" / "a.json", b"1")
    write_atomically(tmp_path / "new" / "a.json", b"2")
    assert (tmp_path / "new" / "a.json").read_bytes() == b"2"
    assert names(tmp_path / "new") == ["a.json"]


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "a", b"old")

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


_WRITER = """
import os, signal, sys
from pathlib import Path
from dualasr_lib.core.files import write_atomically, new_folder
path, how = Path(sys.argv[1]), sys.argv[2]
if how == "killed":
    os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
for number in range(300):
    write_atomically(path, how.encode() * 1000)
"""


def writer(path: Path, how: str) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.Popen([sys.executable, "-c", _WRITER, str(path), how], env=environment)


def test_two_processes_write_one_file(tmp_path: Path) -> None:
    processes = [writer(tmp_path / "a", how) for how in ("x", "y")]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert (tmp_path / "a").read_bytes() in (b"x" * 1000, b"y" * 1000)
    assert names(tmp_path) == ["a"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    assert writer(tmp_path / "a", "killed").wait(60) == -9
    assert len(names(tmp_path)) == 1 and names(tmp_path)[0].endswith(".tmp")
    write_atomically(tmp_path / "a", b"whole")
    assert names(tmp_path) == ["a"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("1", encoding="utf-8")
        assert not list((tmp_path / "out").iterdir())
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "a"]

    def fail(name: str) -> None:
        with new_folder(tmp_path / name) as folder:
            (folder / "b").touch()
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail("other")
    with pytest.raises(ValueError, match="must be new or empty"):
        fail("out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_told_with_its_file(tmp_path: Path) -> None:
    """Writing says none: only opening does. A limit on the size of files is the same kind."""
    code = (
        "import resource, signal\n"
        "from dualasr_lib.core import archive, program\n"
        "from dualasr_lib.core.files import new_folder, write_atomically\n"
        "import sys\n"
        "from pathlib import Path\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "path, how = Path(sys.argv[1]), sys.argv[2]\n"
        "def folder():\n"
        "    with new_folder(path) as made:\n"
        "        (made / 'x').write_bytes(bytes(5000))\n"
        "ways = {'file': lambda: write_atomically(path, bytes(5000)), 'folder': folder,\n"
        "        'archive': lambda: archive.write({'x': list(range(5000))}, path)}\n"
        "program.run_program(ways[how])\n"
    )
    for how in ("file", "folder", "archive"):
        path = tmp_path / how / "result"
        path.parent.mkdir()
        command = [sys.executable, "-c", code, str(path), how]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        (line,) = found.stderr.splitlines()
        assert found.returncode == 1
        assert f"error: {path}: File too large: " in line
        assert list(path.parent.iterdir()) == []


def test_outputs_are_checked_before_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "none")
    for wanted in ("a", "new/er/folder", "."):
        assert output_folder(tmp_path / wanted) == tmp_path / wanted
    assert output_file("file-of-here") == Path("file-of-here")
    for check, wanted, why in (
        (output_folder, "file", "must be a folder, but is a file"),
        (output_folder, "file/a/b", "file must be a folder, but is a file"),
        (output_folder, "nowhere", "but is a link to nothing"),
        (output_file, ".", "must be a file to write, but is a folder"),
        (output_file, "file/a", "file must be a folder, but is a file"),
    ):
        with pytest.raises(OutputError, match=why):
            check(tmp_path / wanted)
    assert sorted(names(tmp_path)) == ["file", "nowhere"]


def test_a_folder_that_may_not_be_written_to() -> None:
    """Seen by a process that is not root, who may write anywhere."""
    folder = Path(tempfile.mkdtemp())  # below what anybody may enter, as `tmp_path` is not
    folder.chmod(0o555)
    child = os.fork()
    if not child:
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            output_file(folder / "x" / "y")
        except OutputError as error:
            os._exit(0 if f"{folder} may not be written to" in str(error) else 2)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    folder.rmdir()
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize("how", ["folder", "lines"])
def test_what_ctrl_c_breaks_off_leaves_nothing(how: str, tmp_path: Path) -> None:
    """Neither a half-written file nor a temporary one; the exit code is that of the signal."""
    if how == "lines":
        pytest.importorskip("lhotse")
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from dualasr_lib.core import program\n"
        "from dualasr_lib.core.files import new_folder\n"
        "path, how = Path(sys.argv[1]), sys.argv[2]\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # nohup leaves it ignored
        "def items():\n"
        "    yield {'id': 'a'}\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    yield {'id': 'b'}\n"
        "def folder():\n"
        "    with new_folder(path) as made:\n"
        "        (made / 'x').touch()\n"
        "        list(items())\n"
        "def lines():\n"
        "    from dualasr_lib.recipe.stage import write_jsonl\n"
        "    write_jsonl(path, items())\n"
        "program.run_program({'folder': folder, 'lines': lines}[how])\n"
    )
    path = tmp_path / "made" / "result"
    path.parent.mkdir()
    command = [sys.executable, "-c", code, str(path), how]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (130, "-c: interrupted\n")
    assert names(path.parent) == []
