"""Options are read, and what is wrong with them said, before anything heavy is imported: each
program runs in a process that cannot import torch and the like.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from dualasr_lib.programs.options import ALL, Program, add_options, decode_config, parser
from dualasr_lib.recognition.default import default_bundle
from dualasr_lib.recognition.methods.registry import METHODS

ROOT = Path(__file__).parents[2]
HEAVY = (
    *("torch", "numpy", "k2", "lhotse", "kaldifeat", "sentencepiece", "soundfile", "tensorboard"),
    *("scipy", "matplotlib"),
)
FOLDERS = ("--exp-dir", "no-exp", "--data-dir", "no-data")
DATA = (*FOLDERS, "--split", "eval1")
DECODE = (*DATA, "--branch", "full")
STREAMED = ("greedy", "1best", "hlg", "transducer-greedy", "transducer-beam", "fast-beam")
_BLOCKED = """
import runpy, sys
for name in {blocked!r}:
    sys.modules[name] = None
path, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = path
sys.path.insert(0, path.rpartition("/")[0])
runpy.run_path(path, run_name="__main__")
"""


def run(
    program: str, *arguments: str, blocked: tuple[str, ...] = HEAVY
) -> subprocess.CompletedProcess[str]:
    """What a process says that cannot import some libraries."""
    code = _BLOCKED.format(blocked=blocked)
    return subprocess.run(
        [sys.executable, "-c", code, str(ROOT / program), *arguments],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def programs() -> list[str]:
    """Everything that is started by hand: what ends in `if __name__ == "__main__":`."""
    found = []
    for folder in ("dualasr_lib/programs", "egs", "tools"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if '\nif __name__ == "__main__":\n' in path.read_text(encoding="utf-8"):
                found.append(str(path.relative_to(ROOT)))
    return found


def test_programs_are_found() -> None:
    assert {
        "dualasr_lib/programs/transcribe.py",
        "egs/csj/local/corpus.py",
        "egs/csj/train.py",
        "tools/analysis/cuts.py",
        "tools/compare.py",
        "tools/setup/check_setup.py",
    } <= set(programs())


@pytest.mark.parametrize("program", programs())
def test_help_needs_nothing_heavy(program: str) -> None:
    found = run(program, "--help")
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.startswith("usage: ")


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        ("egs/csj/train.py", ("--config", "no.toml", *FOLDERS), "no.toml"),
        ("egs/csj/decode.py", (*DECODE, "--scales", "lm=1"), "--scales is for methods"),
        ("egs/csj/decode.py", (*DECODE, "--method", "nbest", "--beam", "x=1"), "method nbest: un"),
        (
            "egs/csj/decode.py",
            (*DECODE, "--method", "transducer-beam", "--beam", "beam=0"),
            "`beam` must be at least 1 hypothesis, but is 0",
        ),
        (
            "egs/csj/streaming_decode.py",
            (*DATA, "--method", "transducer-greedy", "--beam", "temperature=0"),
            "`temperature` must be positive and finite, but is 0",
        ),
        (
            "egs/csj/decode.py",
            (*DECODE, "--method", "fast-beam", "--beam", "beam=0"),
            "`beam` must be positive, but is 0",
        ),
        ("egs/csj/decode.py", (*DECODE, "--write-nbest"), "method 1best makes no n-best lists"),
        ("egs/csj/decode.py", (*DECODE, "--write-nbest", "--method", ALL), "not for --method all"),
        ("egs/csj/decode.py", (*DECODE, "--avg", "-1"), "--avg must be at least 0"),
        ("egs/csj/streaming_decode.py", (*DATA, "--num-streams", "0"), "--num-streams must be"),
        ("egs/csj/streaming_decode.py", (*DATA, "--second-beam", "num_paths=3"), "for --two-pass"),
        (
            "egs/csj/streaming_decode.py",
            (*DATA, "--two-pass", "--method", "greedy", "1best"),
            "--two-pass follows one first pass, but 2 methods",
        ),
        ("dualasr_lib/programs/transcribe.py", (*FOLDERS, "a", "--threads", "0"), "--threads must"),
        ("dualasr_lib/programs/transcribe.py", (*FOLDERS, "a", "--threads", "9" * 12), "to 1024"),
        (
            "dualasr_lib/programs/transcribe.py",
            (*FOLDERS, "a", "--endpoint", "max_second=3"),
            "did you mean 'max_seconds'",
        ),
        (
            "dualasr_lib/programs/transcribe.py",
            (*FOLDERS, "a", "--second-beam", "num_paths=3"),
            "--second-beam is for --two-pass",
        ),
        ("egs/csj/decode.py", (*DECODE, "--bundle", "b"), "but both are given"),
        ("egs/csj/decode.py", DECODE[2:], "by --bundle, but neither is given"),
        ("egs/csj/decode.py", ("--bundle", "b", *DECODE[2:]), "--bundle needs --out-dir"),
        ("egs/csj/streaming_decode.py", ("--bundle", "b", *DATA[2:]), "--bundle needs --out-dir"),
        ("tools/latency_curve.py", ("--bundle", "b", *DATA[2:]), "--bundle needs --out-dir"),
        ("dualasr_lib/programs/transcribe.py", ("--bundle", "b", "a", "--avg", "2"), "one set of"),
        ("dualasr_lib/programs/transcribe.py", ("--exp-dir", "e", "a"), "needs --data-dir"),
        ("dualasr_lib/programs/transcribe.py", ("--data-dir", "d", "a"), "but neither is given"),
        ("dualasr_lib/programs/bundle.py", (), "give EXP, whose model is bundled, or --show FILE"),
        ("dualasr_lib/programs/bundle.py", ("e", "--out", "x"), "--data-dir must be given"),
        (
            "dualasr_lib/programs/bundle.py",
            ("e", "--data-dir", "d", "--out", "x", "--results", "noisy"),
            "--results must be NAME=OUT, each name once, but has 'noisy'",
        ),
        ("dualasr_lib/programs/bundle.py", ("e", "--data-dir", "d"), "--out must be given"),
        (
            "dualasr_lib/programs/bundle.py",
            ("--show", "pyproject.toml"),
            "pyproject.toml is no bundle of this program",
        ),
        ("dualasr_lib/programs/export.py", ("--out", "x"), "by --bundle, but neither is given"),
        (
            "dualasr_lib/programs/export.py",
            ("--bundle", "b", "--out", "egs"),
            "the folder must be new or empty, but egs is there already",
        ),
        ("tools/latency_curve.py", (*DATA, "--beam", "beam=3"), "method 1best: unknown"),
        ("tools/run_matrix.py", ("--matrix", "x", "--jobs", "0"), "--jobs must be at least 1"),
    ],
)
def test_an_option_error_needs_nothing_heavy(
    program: str, arguments: tuple[str, ...], message: str
) -> None:
    found = run(program, *arguments)
    assert found.returncode == 1
    (line,) = found.stderr.splitlines()
    assert line.startswith(f"{Path(program).name}: error: ")
    assert message in line


FILES = {
    "dualasr_lib/programs/bundle.py": ("--out",),
    "tools/analysis/calibration.py": ("--picture",),
    "tools/analysis/power.py": ("--picture",),
    "tools/bad_inputs.py": ("--out",),
    "tools/bench_decoding.py": ("--json",),
    "tools/bench_long_stream.py": ("--json", "--png"),
    "tools/bench_scale.py": ("--json",),
    "tools/bench_streaming.py": ("--json",),
    "tools/bench_training.py": ("--json",),
    "tools/count_parameters.py": ("--json",),
    "tools/learning_curves.py": ("--json",),
    "tools/similarity.py": ("--png",),
}
DIRECTORIES = {
    "dualasr_lib/programs/export.py": ("--out",),
    "dualasr_lib/programs/transcribe.py": ("--out-dir",),
    "egs/csj/train.py": ("--exp-dir",),
    "tools/bad_inputs.py": ("--keep",),
    "tools/latency_curve.py": ("--out",),
    "tools/make_open_corpus.py": ("--out",),
    "tools/run_matrix.py": ("--out",),
}
READ = {"--out": "learning_curves.py", "--out-dir": "options.py"}
"""The folder of a matrix; what `decode_config` checks, because EXP stands in for it."""


@pytest.mark.parametrize("program", sorted({*FILES, *DIRECTORIES}))
def test_where_nothing_can_be_written_is_said_first(program: str, tmp_path: Path) -> None:
    """Before anything else is asked for: a file in the way, and a folder where a file should be."""
    (tmp_path / "file").touch()
    for option in FILES.get(program, ()):
        for place, why in ((tmp_path, "is a folder"), (tmp_path / "file" / "x", "but is a file")):
            refused(program, option, place, why)
    for option in DIRECTORIES.get(program, ()):
        for place in (tmp_path / "file", tmp_path / "file" / "x" / "y"):
            refused(program, option, place, "but is a file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def refused(program: str, option: str, place: Path, why: str) -> None:
    found = run(program, option, str(place))
    assert found.returncode == 1
    (line,) = found.stderr.splitlines()
    assert str(place) in line
    assert why in line


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("egs/csj/decode.py", DECODE),
        ("egs/csj/streaming_decode.py", DATA),
        ("tools/latency_curve.py", DATA),
    ],
)
@pytest.mark.parametrize("option", ["--out-dir", "--exp-dir"])
def test_a_file_in_the_place_of_results_is_said_first(
    program: str, arguments: tuple[str, ...], option: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    found = run(program, *arguments, option, str(tmp_path / "file"))
    (line,) = found.stderr.splitlines()
    assert (found.returncode, "must be a folder, but is a file" in line) == (1, True)


def test_no_option_for_output_goes_unchecked() -> None:
    """By their names: what is written anywhere is checked where options are read."""
    names = {*(o for options in (*FILES.values(), *DIRECTORIES.values()) for o in options)}
    for folder in ("dualasr_lib", "egs", "tools"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            for option in names - {"--exp-dir"}:
                bare = re.search(rf'"{option}",[^)]*(type|kind)=Path', text)
                assert not bare or READ.get(option) == path.name, (path, option)


def test_a_choice_that_is_none_needs_nothing_heavy() -> None:
    found = run("egs/csj/streaming_decode.py", *DATA, "--method", "attention")
    assert found.returncode == 2
    choices = ", ".join(map(repr, STREAMED))
    assert f"invalid choice: 'attention' (choose from {choices}" in found.stderr


@pytest.mark.parametrize("program", programs())
def test_help_takes_little_time(program: str) -> None:
    """At most 0.3 s of CPU where this was written, and 3.4 s when torch, k2 and lhotse came first;
    the limit leaves room for slower machines.
    """
    spent: list[float] = []
    while len(spent) < 3 and min(spent, default=1.0) >= 0.6:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run(program, "--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 0.6


def arguments_of(program: Program, *words: str) -> argparse.Namespace:
    reader = parser(None)
    add_options(reader, program)
    own = {"decode": DECODE, "stream": DATA, "curve": DATA, "transcribe": FOLDERS}[program]
    return reader.parse_args([*own, *words])


@pytest.mark.parametrize("program", get_args(Program))
def test_one_list_of_options_for_all_programs(program: Program) -> None:
    words = ("--epoch", "3", "--avg", "2", "--chunk-ms", "160", "--left-ms", "640")
    config = decode_config(arguments_of(program, *words, "--device", "cpu"), program)
    assert (config.exp_dir, config.data_dir) == (Path("no-exp"), Path("no-data"))
    assert (config.epoch, config.avg, config.chunk_ms, config.left_ms) == (3, 2, 160, 640)
    assert (config.methods, config.streams) == (("1best",), program != "decode")
    given = ("--method", "hlg", "--beam", "beam=5", "--beam", "max_active=9", "--scales", "lm=1")
    config = decode_config(arguments_of(program, *given, "--lm", "x.arpa"), program)
    assert (config.methods, config.beam) == (("hlg",), ("beam=5", "max_active=9"))
    assert (config.scales, config.lm) == ({"lm": 1.0}, Path("x.arpa"))


@pytest.mark.parametrize("program", get_args(Program))
def test_a_bundle_in_place_of_an_experiment(program: Program) -> None:
    reader = parser(None)
    add_options(reader, program)
    words = ("--data-dir", "no-data", "--split", "eval1", "--out-dir", "no-out")
    words = () if program == "transcribe" else words
    branch = ("--branch", "full") if program == "decode" else ()
    config = decode_config(reader.parse_args(["--bundle", "x.dualasr", *words, *branch]), program)
    assert (config.exp_dir, config.bundle) == (None, Path("x.dualasr"))
    assert config.out_dir == (None if program == "transcribe" else Path("no-out"))


def test_audio_files_are_heard_with_the_model_of_the_package() -> None:
    reader = parser(None)
    add_options(reader, "transcribe")
    config = decode_config(reader.parse_args([]), "transcribe")
    assert (config.exp_dir, config.bundle) == (None, default_bundle())


def test_all_methods_by_one_word() -> None:
    config = decode_config(arguments_of("decode", "--method", ALL), "decode")
    assert (config.methods, config.every) == (tuple(METHODS), True)
    config = decode_config(arguments_of("stream", "--method", ALL), "stream")
    assert (config.methods, config.every) == (STREAMED, True)


def test_branches_are_those_of_models() -> None:
    joint = pytest.importorskip("dualasr_lib.model.joint")
    assert arguments_of("decode").branch == ["full"]
    for branch in joint.BRANCHES:
        assert arguments_of("decode", "--branch", branch).branch[-1] == branch
