"""Documents say what is there: their commands fit the programs, their paths and imports exist."""

import ast
import importlib
import re
from pathlib import Path

import pytest
from document_commands import Command, commands, fault, python_blocks

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    "README.md",
    "egs/csj/README.md",
    "egs/csj/RESULTS.md",
    "egs/csj/DIAGNOSIS.md",
    "dualasr_lib/DESIGN.md",
    "tools/open_corpus/README.md",
)
FOUND = [
    command
    for document in DOCUMENTS
    for command in commands((ROOT / document).read_text(encoding="utf-8"), document)
]


def _name(command: Command) -> str:
    return f"{command.document}:{command.line}"


def test_commands_are_found() -> None:
    """Each kind of them, so that none is skipped for its look."""
    lines = [" ".join(command.words) for command in FOUND]
    for start in (
        "bash egs/csj/demo.sh",
        "egs/csj/train.py --config",
        "egs/csj/decode.py --exp-dir EXP",
        ".venv-torch2/bin/torchrun --nproc_per_node 8 egs/csj/train.py",
        "dualasr-transcribe --exp-dir EXP --data-dir DATA -",
        "python -m dualasr_lib.recipe.noise",
        "tools/run_matrix.py --from-json",
    ):
        assert any(line.startswith(start) for line in lines), start
    assert len(FOUND) > 40


@pytest.mark.parametrize("command", FOUND, ids=_name)
def test_a_command_fits_its_program(command: Command) -> None:
    assert fault(command) is None, " ".join(command.words)


def faults_of_paths(text: str, folder: Path) -> list[str]:
    """Options and files that sentences and links name and that are not there."""
    found = []
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        if not (folder / link).exists():
            found.append(f"link {link}")
    for code in re.findall(r"`([^`\n]+)`", text):
        for word in code.split():
            path = re.fullmatch(r"(?:egs|tools|tests|conf|dualasr_lib)/[\w./-]+", word)
            kept = word in ("dualasr_lib/export/", "dualasr_lib/serving/")
            if path and not kept and not (ROOT / word).exists():
                found.append(word)
        option = re.match(r"(--[a-z][\w-]+)", code)
        if option and option[1] not in OPTIONS:
            found.append(option[1])
    return found


def _options() -> set[str]:
    """Every option that a program of ours defines, read from the sources."""
    found = set()
    for top in ("dualasr_lib", "egs", "tools"):
        for path in (ROOT / top).rglob("*"):
            if path.suffix in (".py", ".sh"):
                text = path.read_text(encoding="utf-8")
                found |= set(re.findall(r"[\"'\s](--[a-z][\w-]*)(?=[\"')\s])", text))
    corpora = (ROOT / "dualasr_lib/recipe/options.py", ROOT / "egs/csj/local/options.py")
    for path in corpora:  # their options are the fields of dataclasses
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add("--" + node.target.id.replace("_", "-"))
    return found


OPTIONS = _options()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_links_and_options_are_there(document: str) -> None:
    path = ROOT / document
    assert faults_of_paths(path.read_text(encoding="utf-8"), path.parent) == []


def fault_of_python(code: str) -> str | None:
    """What does not compile, or is imported and not there."""
    try:
        tree = ast.parse(code)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    importlib.import_module(alias.name)
            elif isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                for alias in node.names:
                    getattr(module, alias.name)
    except (SyntaxError, ImportError, AttributeError) as error:
        return str(error)
    return None


@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_of_documents_can_be_imported(document: str) -> None:
    for code in python_blocks((ROOT / document).read_text(encoding="utf-8")):
        assert fault_of_python(code) is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("    egs/csj/train.py --config egs/csj/conf/none.toml ...", "is not there"),
        ("Run `egs/csj/train.py --config conf/multi_decoder.toml --base conf/demo.toml`.",
         "conf/multi_decoder.toml is not there"),
        ("    tools/nothing.py --help", "not there"),
        ("    tools/show_results.py EXP --colour", "unrecognized arguments: --colour"),
        ("    egs/csj/decode.py --exp-dir EXP --data-dir DATA --branch full", "--split"),
        ("    egs/csj/decode.py --method best ...", "invalid choice"),
        ("    egs/csj/decode_all.sh --exp-dir EXP --lexicom", "no option --lexicom"),
        ("    egs/csj/prepare.sh --csj-dir CSJ --data-dir DATA --opn", "--opn"),
        ("    python -m dualasr_lib.recipe.noises --noise-dir WAVS", "does not start"),
        ("    tools/count_parameters.py X.toml", "--config"),
    ],
)  # fmt: skip
def test_a_planted_command_is_refused(line: str, expected: str) -> None:
    [command] = commands(f"Text.\n\n{line}\n", "page")
    assert expected in str(fault(command))


def test_planted_paths_links_and_python_are_found() -> None:
    text = "See `conf/matrix.toml`, `--nonesuch 3` and [this](no.md); not `--scales` or `a/b`."
    assert faults_of_paths(text, ROOT) == ["link no.md", "conf/matrix.toml", "--nonesuch"]
    assert python_blocks("Text\n\n```python\nimport json\n```\n") == ["import json\n"]
    assert fault_of_python("from dualasr_lib.core.files import write_atomically") is None
    for code in ("import", "import dualasr_lib.cor", "from dualasr_lib.core.files import write"):
        assert fault_of_python(code) is not None
