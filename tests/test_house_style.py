"""House style that a program can measure: sizes, docstrings, `__all__`, absolute imports.

Formatting and lint are ruff's. Whether something happens on import is not looked at.
"""

import ast
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("dualasr_lib", "egs", "tools", "tests")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 8
MAX_LINE_WIDTH = 100

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def complaints(path: Path, source: str) -> Iterator[str]:
    """What is wrong with one Python file; `path` is relative to the repository."""
    lines = source.splitlines()
    if len(lines) > MAX_FILE_LINES:
        yield f"{len(lines)} lines, at most {MAX_FILE_LINES}"
    for number, line in enumerate(lines, start=1):
        if _width(line) > MAX_LINE_WIDTH:
            yield f"line {number} is {_width(line)} columns wide, at most {MAX_LINE_WIDTH}"
    tree = ast.parse(source)
    if not ast.get_docstring(tree):
        yield "has no module docstring"
    for node in ast.walk(tree):
        if isinstance(node, _Function):
            yield from _function_complaints(node)
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"line {node.lineno} imports relatively"
    if path.parts[0] == "dualasr_lib" and path.name != "__init__.py":
        yield from _interface_complaints(tree)


def _function_complaints(function: _Function) -> Iterator[str]:
    length = (function.end_lineno or function.lineno) - function.lineno + 1
    if length > MAX_FUNCTION_LINES:
        yield f"{function.name} has {length} lines, at most {MAX_FUNCTION_LINES}"
    arguments = function.args
    names = [a.arg for a in arguments.posonlyargs + arguments.args + arguments.kwonlyargs]
    names += [a.arg for a in (arguments.vararg, arguments.kwarg) if a is not None]
    count = len([name for name in names if name not in ("self", "cls")])
    if count > MAX_PARAMETERS:
        yield f"{function.name} has {count} parameters, at most {MAX_PARAMETERS}"


def _interface_complaints(tree: ast.Module) -> Iterator[str]:
    """`__all__` names what is defined here, and all public classes and functions are in it."""
    defined: set[str] = set()
    public: set[str] = set()
    exported: list[str] | None = None
    for node in tree.body:
        if isinstance(node, ast.ClassDef | _Function):
            defined.add(node.name)
            if not node.name.startswith("_"):
                public.add(node.name)
                if not ast.get_docstring(node):
                    yield f"{node.name} has no docstring"
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            stored = [name for target in targets for name in ast.walk(target)]
            defined.update(name.id for name in stored if isinstance(name, ast.Name))
            if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets) and node.value:
                exported = ast.literal_eval(node.value)
        elif isinstance(node, ast.Import | ast.ImportFrom | ast.Try | ast.If):
            defined.update(
                alias.asname or alias.name
                for child in ast.walk(node)
                if isinstance(child, ast.Import | ast.ImportFrom)
                for alias in child.names
            )
    if exported is None:
        yield "has no __all__"
        return
    for name in sorted(set(exported) - defined):
        yield f"__all__ names {name}, which is not defined"
    for name in sorted(public - set(exported)):
        yield f"{name} is public but not in __all__"


def _width(line: str) -> int:
    """Columns, two for a full-width character; like ruff, without a closing `noqa` and such."""
    line = re.sub(r"\s*#\s*(type: ignore|noqa|fmt:).*$", "", line)
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


def _files(suffix: str) -> list[Path]:
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob(f"*{suffix}")]
    return sorted(path.relative_to(ROOT) for path in paths)


@pytest.mark.parametrize("path", _files(".py"), ids=str)
def test_python_file(path: Path) -> None:
    found = list(complaints(path, (ROOT / path).read_text(encoding="utf-8")))
    assert not found, f"{path}:\n" + "\n".join(found)


@pytest.mark.parametrize("path", _files(".sh"), ids=str)
def test_shell_file(path: Path) -> None:
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MAX_FILE_LINES
    assert lines[0].startswith("#"), "must open with what it is"


def test_tests_have_unique_names_and_are_no_packages() -> None:
    names = [path.name for path in _files(".py") if path.parts[0] == "tests"]
    names = [name for name in names if name != "conftest.py"]
    assert "__init__.py" not in names
    assert len(set(names)) == len(names), "two test files have one name"


def test_nothing_is_imported_from_a_conftest() -> None:
    """Every folder has one, and Python knows one module of that name: whose, chance decides."""
    importing = re.compile(r"^\s*(from|import) conftest\b", re.MULTILINE)
    tests = [ROOT / path for path in _files(".py") if path.parts[0] == "tests"]
    found = [str(path) for path in tests if importing.search(path.read_text(encoding="utf-8"))]
    assert not found, f"give them a module of their own name: {found}"


_GOOD = '"""Doc."""\n\n__all__ = ["f"]\n\n\ndef f() -> None:\n    """Doc."""\n'


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (_GOOD + "\n" * 400, "407 lines"),
        (_GOOD + "def _g() -> None:\n" + "    f()\n" * 60, "_g has 61 lines"),
        (_GOOD + f"def _g({', '.join('abcdefghi')}) -> None: ...\n", "_g has 9 parameters"),
        (_GOOD + f"def _g({', '.join('abcdefg')}, *h, i) -> None: ...\n", "_g has 9 parameters"),
        (_GOOD + f"# {'x' * 99}\n", "101 columns"),
        (_GOOD + f"# {'あ' * 50}\n", "102 columns"),
        (_GOOD.replace('"""Doc."""\n\n__all__', "__all__"), "has no module docstring"),
        (_GOOD.replace('__all__ = ["f"]', ""), "has no __all__"),
        (_GOOD.replace('["f"]', '["f", "g"]'), "__all__ names g"),
        (_GOOD.replace('["f"]', "[]"), "f is public but not in __all__"),
        (_GOOD.replace('    """Doc."""\n', "    pass\n"), "f has no docstring"),
        (_GOOD + "from . import a\n", "imports relatively"),
        (_GOOD.replace('["f"]', '["f", "A", "B", "C"]') + "A, B = 1, 2\n", "__all__ names C"),
    ],
)
def test_a_planted_fault_is_found(source: str, complaint: str) -> None:
    assert list(complaints(Path("dualasr_lib/a.py"), _GOOD)) == []
    found = list(complaints(Path("dualasr_lib/a.py"), source))
    assert any(complaint in line for line in found), found
