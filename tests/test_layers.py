"""The package's layers and fences (who may import what), read from the source, not from running it.

    4  programs                                               command lines as functions
    3  experiment, validation, recognition, recipe, serving, export       composition
       configuration                                          the configuration of all below
    2  training, decoding, runtime                            mechanisms
    1  data, features, model, lattice, metrics                leaves that do not know each other
    0  core                                          standard library, torch, numpy and tqdm

egs/ and tools/ stand above and are imported by nothing. Names that come in through `importlib` with
a literal argument count too. The last tests plant violations in a small tree and expect each to be
found.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent

_BASE = {"core"}
_LEAVES = {"data", "features", "model", "lattice", "metrics"}
_MECHANISMS = {"training", "decoding", "runtime"}
_BELOW_3 = _BASE | _LEAVES | _MECHANISMS | {"configuration"}
_COMPOSITION = {"experiment", "validation", "recognition", "recipe", "serving", "export"}

ALLOWED: dict[str, set[str]] = {
    **{unit: set() for unit in _BASE},
    **dict.fromkeys(_LEAVES, _BASE),
    "training": _BASE,
    "decoding": _BASE | {"metrics"},
    "runtime": _BASE | {"data", "features", "metrics", "decoding"},
    "configuration": _BASE | _LEAVES | _MECHANISMS,
    "validation": _BELOW_3,
    "experiment": _BELOW_3 | {"validation"},
    "recognition": _BELOW_3,
    "recipe": _BELOW_3,
    "export": _BELOW_3 | {"recognition"},
    "serving": _BELOW_3 | {"recognition"},
    "programs": _BELOW_3 | _COMPOSITION,
}
"""Unit of dualasr_lib -> other units that it may import. A new unit needs a line here."""

_PROOF = "tools/setup/check_setup.py"  # uses each library once, to prove that it works
FENCES: dict[str, tuple[str, ...]] = {
    "lhotse": ("dualasr_lib/data/", "dualasr_lib/recipe/", "egs/*/local/", "tools/"),
    "sentencepiece": ("dualasr_lib/data/", "dualasr_lib/recipe/", "egs/*/local/", "tools/"),
    "kaldifeat": ("dualasr_lib/features/",),
    "kaldi_native_fbank": ("dualasr_lib/features/", _PROOF),
    "k2": ("dualasr_lib/lattice/", _PROOF),
    "tensorboard": ("dualasr_lib/training/logbook.py", _PROOF),
    "torch.utils.tensorboard": ("dualasr_lib/training/logbook.py", _PROOF),
    "onnx": ("dualasr_lib/export/",),
    "onnxruntime": ("dualasr_lib/export/", "dualasr_lib/runtime/"),
    "torch.onnx": ("dualasr_lib/export/",),
    "sherpa_onnx": ("tools/",),
    **dict.fromkeys(
        (
            *("aiohttp", "fastapi", "flask", "prometheus_client", "starlette"),
            *("tornado", "uvicorn", "websockets"),
        ),
        ("dualasr_lib/serving/",),
    ),
}
"""Library -> the only places that may import it; `*` stands for one folder name."""


class Import(NamedTuple):
    """One imported name."""

    name: str
    """Dotted, as far as it can be a module: `from a.b import c` gives "a.b.c"."""
    line: int
    relative: bool


def imports(source: str) -> Iterator[Import]:
    """Every import of a file, wherever in the file it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, False)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield Import(f"{node.module or ''}.{alias.name}", node.lineno, node.level > 0)
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield Import(argument.value, node.lineno, False)


def _called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def violations(root: Path) -> list[str]:
    """All broken rules below `root`, as "file:line: what"."""
    found = []
    for top in ("dualasr_lib", "egs", "tools"):
        for path in sorted((root / top).rglob("*.py")):
            relative = path.relative_to(root)
            for imported in imports(path.read_text(encoding="utf-8")):
                for complaint in _complaints(relative, imported):
                    found.append(f"{relative}:{imported.line}: {complaint}")
    return found


def _complaints(path: Path, imported: Import) -> Iterator[str]:
    parts = imported.name.split(".")
    if imported.relative:
        yield "relative import"
    for library, places in FENCES.items():
        fenced = library.split(".")
        if parts[: len(fenced)] == fenced and not _inside(path, places):
            yield f"{library} is only for {', '.join(places)}"
    if path.parts[0] != "dualasr_lib" or path == Path("dualasr_lib/__init__.py"):
        return
    unit = path.parts[1].removesuffix(".py")
    if unit not in ALLOWED:
        yield f"unit {unit} has no layer: add it to ALLOWED in tests/test_layers.py"
        return
    if parts[0] in ("egs", "tools", "tests"):
        yield f"dualasr_lib must not import {parts[0]}"
    if parts[0] == "dualasr_lib" and parts[1:2] and parts[1] not in _open_to(unit):
        yield f"{unit} must not import {parts[1]}"
    if unit in _BASE and parts[0] not in sys.stdlib_module_names | {
        "dualasr_lib",
        "numpy",
        "torch",
        "tqdm",
    }:
        yield f"{unit} must import only the standard library, torch, numpy and tqdm, not {parts[0]}"


def _open_to(unit: str) -> set[str]:
    """What a unit may import of the package. Its names for users are for users."""
    return ALLOWED[unit] | {unit, "__version__"}


def _inside(path: Path, places: tuple[str, ...]) -> bool:
    for place in places:
        pattern = place.rstrip("/").split("/")
        head = Path(*path.parts[: len(pattern)])
        if len(path.parts) >= len(pattern) and head.match("/".join(pattern)):
            return True
    return False


def cycle(root: Path) -> list[str]:
    """One cycle of imports between modules of dualasr_lib, or an empty list."""
    package = root / "dualasr_lib"
    names = {
        ".".join(path.relative_to(root).with_suffix("").parts): path
        for path in package.rglob("*.py")
        if path.name != "__init__.py"
    }
    graph = {
        name: {
            target
            for imported in imports(path.read_text(encoding="utf-8"))
            for target in (imported.name, imported.name.rpartition(".")[0])
            if target in names and target != name
        }
        for name, path in names.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        for target in sorted(graph[name]):
            if circle := visit(target, [*trail, name]):
                return circle
        done.add(name)
        return []

    return next((circle for name in sorted(graph) if (circle := visit(name, []))), [])


def test_layers_and_fences_hold() -> None:
    found = violations(ROOT)
    assert not found, "\n".join(found)


def test_no_module_imports_itself_in_a_circle() -> None:
    assert cycle(ROOT) == []


def test_package_files_only_hold_a_docstring() -> None:
    """All but that of the package itself, whose names tests/test_package.py looks at."""
    for path in (ROOT / "dualasr_lib").rglob("*/__init__.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        kinds = [type(node).__name__ for node in body]
        assert kinds == ["Expr"], f"{path.relative_to(ROOT)} must hold its docstring only: {kinds}"


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        ("dualasr_lib/model/a.py", "import dualasr_lib.data.batch", "model must not import data"),
        ("dualasr_lib/model/a.py", "from dualasr_lib import lattice", "must not import lattice"),
        ("dualasr_lib/model/a.py", "from dualasr_lib import Final", "must not import Final"),
        ("dualasr_lib/training/a.py", "from dualasr_lib.model import x", "must not import model"),
        ("dualasr_lib/decoding/a.py", "import dualasr_lib.training", "must not import training"),
        ("dualasr_lib/decoding/a.py", "import dualasr_lib.lattice", "must not import lattice"),
        ("dualasr_lib/experiment.py", "import dualasr_lib.serving", "must not import serving"),
        ("dualasr_lib/recipe/a.py", "import egs.csj.local.text", "must not import egs"),
        ("dualasr_lib/experiment.py", "import dualasr_lib.recipe.stage", "must not import recipe"),
        (
            "dualasr_lib/recognition/a.py",
            "import dualasr_lib.experiment",
            "must not import experiment",
        ),
        (
            "dualasr_lib/core/trace.py",
            "import dualasr_lib.decoding",
            "core must not import decoding",
        ),
        ("dualasr_lib/core/tree.py", "import scipy", "numpy and tqdm, not scipy"),
        ("dualasr_lib/core/config.py", "import dualasr_lib.model.a", "core must not import model"),
        ("dualasr_lib/data/a.py", "import egs.csj.train", "must not import egs"),
        ("dualasr_lib/novel/a.py", "import os", "novel has no layer"),
        ("dualasr_lib/model/a.py", "from . import b", "relative import"),
        ("dualasr_lib/model/a.py", "def f():\n    import k2", "k2 is only for"),
        ("dualasr_lib/decoding/a.py", "from k2.fsa import Fsa", "k2 is only for"),
        ("dualasr_lib/data/a.py", "import kaldifeat", "kaldifeat is only for"),
        ("dualasr_lib/model/a.py", "import lhotse.cut", "lhotse is only for"),
        ("egs/csj/train.py", "import sentencepiece", "sentencepiece is only for"),
        ("tools/profile.py", "import k2", "k2 is only for"),
        ("dualasr_lib/training/loop.py", "import torch.utils.tensorboard", "tensorboard is only"),
        ("dualasr_lib/training/loop.py", "from torch.utils import tensorboard", "is only for"),
        ("dualasr_lib/model/a.py", "import importlib\nimportlib.import_module('k2')", "k2 is only"),
        ("dualasr_lib/model/a.py", "__import__('onnxruntime')", "onnxruntime is only for"),
    ],
)
def test_a_planted_violation_is_found(
    tmp_path: Path, file: str, source: str, complaint: str
) -> None:
    _plant(tmp_path, file, source)
    assert any(complaint in line and line.startswith(file) for line in violations(tmp_path))


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("dualasr_lib/model/a.py", "import torch\nfrom dualasr_lib.core.tree import leaves"),
        ("dualasr_lib/model/a.py", "from dualasr_lib.model import b"),
        ("dualasr_lib/decoding/a.py", "from dualasr_lib.metrics.error_rate import ErrorCounts"),
        (
            "dualasr_lib/serving/a.py",
            "import dualasr_lib.recognition.a\nimport websockets",
        ),
        ("dualasr_lib/lattice/a.py", "import k2"),
        ("dualasr_lib/recipe/a.py", "import lhotse\nimport dualasr_lib.features.fbank"),
        ("dualasr_lib/training/logbook.py", "import torch.utils.tensorboard"),
        ("dualasr_lib/model/a.py", "import k2_like_name, torch.nn"),
        ("egs/csj/local/a.py", "import lhotse\nfrom dualasr_lib.data import batch"),
        ("tools/setup/check_setup.py", "import k2"),
    ],
)
def test_what_is_allowed_is_not_reported(tmp_path: Path, file: str, source: str) -> None:
    _plant(tmp_path, file, source)
    assert violations(tmp_path) == []


def test_a_planted_cycle_is_found(tmp_path: Path) -> None:
    _plant(tmp_path, "dualasr_lib/model/a.py", "from dualasr_lib.model.b import x")
    _plant(tmp_path, "dualasr_lib/model/b.py", "from dualasr_lib.model import c")
    assert cycle(tmp_path) == []
    _plant(tmp_path, "dualasr_lib/model/c.py", "import dualasr_lib.model.a")
    assert [name[-1] for name in cycle(tmp_path)] == ["a", "b", "c", "a"]


def _plant(root: Path, file: str, source: str) -> None:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
