"""dualasr_lib/DESIGN.md says what the code does: paths, names, layers, fences and registries."""

import ast
import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from test_layers import ALLOWED, FENCES

from dualasr_lib.model.distillation import METHODS as DISTILLATIONS
from dualasr_lib.model.distillation import MethodName
from dualasr_lib.model.heads.registry import HEADS
from dualasr_lib.recognition.methods.registry import METHODS
from dualasr_lib.training.optim import OptimConfig

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "dualasr_lib" / "DESIGN.md"
LAYERS = {"0": {"core"}, "1": {"data", "features", "model", "lattice", "metrics"}}
LAYERS["2"] = {"training", "decoding", "runtime"}


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def quoted(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


def rows(section: str) -> list[list[str]]:
    """The cells of the table rows of a section, heading left out."""
    body = page().split(f"## {section}\n")[1].split("\n## ")[0]
    lines = [line for line in body.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def named(path: Path) -> set[str]:
    """Names that a module defines: functions, classes, assigned names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def place(path: str) -> Path | None:
    """The file or folder that the page means, or None."""
    for base in (ROOT / "dualasr_lib", ROOT):
        if (base / path).exists():
            return base / path
    return None


def faults(text: str) -> list[str]:
    """Paths and names of a text that are not there."""
    found = []
    for word in quoted(text):
        path, _, name = word.partition("::")
        if "*" in path or "<" in path or not re.fullmatch(r"[\w./-]+", path):
            continue
        if not ("/" in path or path.endswith((".py", ".toml", ".sh"))):
            continue
        if path in ("dualasr_lib/export/", "dualasr_lib/serving/"):  # places that are kept
            continue
        where = place(path)
        if where is None:
            found.append(f"{path} is not there")
        elif name and name not in named(where):
            found.append(f"{path} has no {name}")
    return found


def test_every_path_and_name_is_there() -> None:
    assert faults(page()) == []


def test_places_that_are_kept_are_still_empty() -> None:
    """Whoever fills one takes "(place kept)" and "There is none yet" out of the page."""
    for unit in ("export", "serving"):
        assert (ROOT / "dualasr_lib" / unit).exists() != (f"| `{unit}` | (place kept)" in page()), (
            unit
        )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("`model/heads/contract.py::Hed`", "model/heads/contract.py has no Hed"),
        ("`model/header/`", "model/header/ is not there"),
        ("`tests/test_nothing.py`", "tests/test_nothing.py is not there"),
    ],
)
def test_a_wrong_path_or_name_is_found(text: str, fault: str) -> None:
    assert faults(text) == [fault]


def test_layers_are_those_that_are_enforced() -> None:
    below = set().union(*LAYERS.values())
    said = {}
    for layer, unit, _, imports in (row for row in rows("Layers") if row[0].isdigit()):
        allowed = set(quoted(imports))
        for number in re.findall(r"\b\d\b", imports):
            allowed |= LAYERS[number]
        said[unit.strip("`")] = ALLOWED.keys() - {"programs"} if imports == "all" else allowed
        assert layer not in LAYERS or unit.strip("`") in LAYERS[layer]
    assert said == ALLOWED
    assert below <= said.keys()


def test_fences_are_those_that_are_enforced() -> None:
    said = {}
    for libraries, *places in (row for row in rows("Layers") if len(row) == 2):
        for library in quoted(libraries):
            said[library] = tuple(quoted(places[0]))
    assert said == FENCES


@pytest.mark.parametrize(
    ("start", "registered"),
    [
        ("Registered heads: ", list(HEADS)),
        ("Registered methods: ", list(METHODS)),
        ("**A distillation.** Registered: ", list(DISTILLATIONS)),
        ("**An optimiser.** Registered: ", list(get_args(get_type_hints(OptimConfig)["name"]))),
    ],
)
def test_lists_are_the_registries(start: str, registered: list[str]) -> None:
    line = page().split(start)[1].splitlines()[0]
    assert quoted(line) == registered


def test_distillations_are_named_twice_in_the_code_alike() -> None:
    assert list(get_args(MethodName)) == list(DISTILLATIONS)


def test_one_page() -> None:
    assert len(page().splitlines()) <= 200
