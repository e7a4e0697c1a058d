"""The package for its users: names, version, and extras that hold what their use needs."""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from test_layers import imports

import dualasr_lib
from dualasr_lib.recognition.default import default_bundle

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dualasr_lib"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
MODULES = {"kaldi_native_fbank": "kaldi-native-fbank"}
"""Module -> what PyPI calls it, where that is another name."""
BY_HAND = {"k2", "kaldifeat", "_kaldifeat"}
"""Not from PyPI: searches and features that do without them say so, or do without them."""


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return table


def requirements(extra: str) -> set[str]:
    """Names of packages that an extra brings, with those of extras that it names."""
    found = set()
    for item in project()["optional-dependencies"][extra]:
        inner = re.fullmatch(r"dualasr\[(\w+)\]", item)
        found |= requirements(inner[1]) if inner else {re.split(r"[<>=!~ ]", item)[0]}
    return found


def process(code: str) -> Any:
    """What a process of its own prints last, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT,
        env=ENVIRONMENT,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def libraries(files: set[Path]) -> set[str]:
    """Third-party modules that files import, wherever in them."""
    tops = {item.name.split(".")[0] for path in files for item in imports(path.read_text("utf-8"))}
    return tops - set(sys.stdlib_module_names) - {"dualasr_lib"} - BY_HAND


def test_every_name_for_users_is_there() -> None:
    pytest.importorskip("sentencepiece")
    pytest.importorskip("soundfile")
    for name in dualasr_lib.__all__:
        assert getattr(dualasr_lib, name) is not None
        assert name in dir(dualasr_lib)
    assert set(dualasr_lib._PLACES) == set(dualasr_lib.__all__) - {"__version__"}
    with pytest.raises(AttributeError, match="'dualasr_lib' has no attribute 'Recognizer'"):
        _ = dualasr_lib.Recognizer  # type: ignore[attr-defined]


def test_type_checkers_are_told_the_same_places() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    told = {
        alias.name: (node.module or "").removeprefix("dualasr_lib.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told == dualasr_lib._PLACES
    for name, place in told.items():
        assert name in importlib.import_module(f"dualasr_lib.{place}").__all__


def test_importing_the_package_brings_nothing_along() -> None:
    code = "import sys, json, dualasr_lib; print(json.dumps(sorted(sys.modules)))"
    found = set(process(code))
    ours = {name for name in found if name.startswith("dualasr_lib.")}
    assert not ours and not found & {"torch", "numpy", "argparse", "logging"}


def test_the_wheel_has_the_model_that_it_ships() -> None:
    """By its settings; tools/check_wheel.sh looks into a wheel."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    files = {
        path
        for package, patterns in tool["package-data"].items()
        for pattern in patterns
        for path in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    assert files == {default_bundle()}


def test_the_version_is_said_once() -> None:
    assert "version" in project()["dynamic"] and "version" not in project()
    assert re.fullmatch(r"\d+\.\d+\.\d+", dualasr_lib.__version__)
    for program in ("-m dualasr_lib.programs.transcribe", "egs/csj/train.py", "egs/csj/decode.py"):
        done = subprocess.run(
            [sys.executable, *program.split(), "--version"], capture_output=True, text=True,
            check=True, cwd=ROOT, env=ENVIRONMENT,
        )  # fmt: skip
        assert done.stdout == f"dualasr {dualasr_lib.__version__}\n"


def test_the_extra_recognise_is_what_recognising_needs_and_no_more() -> None:
    """All that is imported by what users import and by the program, in whatever function."""
    pytest.importorskip("sentencepiece")
    pytest.importorskip("soundfile")
    code = """
import importlib, json, sys, dualasr_lib, dualasr_lib.programs.transcribe
[getattr(dualasr_lib, name) for name in dualasr_lib.__all__]
from dualasr_lib.recognition.methods.registry import METHODS
from dualasr_lib.recognition import decode_setup
print(json.dumps([m.__file__ for n, m in sys.modules.items() if n.startswith("dualasr_lib.")]))
"""
    files = {Path(file) for file in process(code)}
    assert PACKAGE / "features/fbank.py" in files and PACKAGE / "model/joint.py" in files
    base = {re.split(r"[<>=]", item)[0] for item in project()["dependencies"]}
    needed = {MODULES.get(name, name) for name in libraries(files)}
    assert needed == base | requirements("recognise")


@pytest.mark.parametrize(
    ("extra", "files"),
    [
        ("train", ["experiment.py", "training/*.py", "data/datamodule.py", "data/sampling.py"]),
        ("data", ["recipe/*.py", "features/*.py", "data/*.py", "../egs/csj/local/*.py"]),
        ("corpus", ["../tools/open_corpus/*.py"]),
    ],
)
def test_extras_hold_what_their_files_import(extra: str, files: list[str]) -> None:
    paths = {path for pattern in files for path in PACKAGE.glob(pattern)}
    assert len(paths) >= len(files)
    own = {"egs", "tools", "open_corpus"}
    base = {re.split(r"[<>=]", item)[0] for item in project()["dependencies"]}
    needed = {MODULES.get(name, name) for name in libraries(paths) - own}
    others = {"pyopenjtalk": "pyopenjtalk-plus"}
    assert {others.get(name, name) for name in needed} <= base | requirements(extra)
