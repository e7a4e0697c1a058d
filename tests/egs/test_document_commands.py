"""Commands of the documents that are cheap run as they stand, on the tiny tree and its model."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_training import ENVIRONMENT, ROOT

sys.path.insert(0, str(ROOT / "tests"))

from document_commands import Command, commands

for library in ("lhotse", "_kaldifeat", "k2", "kaldingram", "sentencepiece"):
    pytest.importorskip(library)

from dualasr_lib.programs import bundle  # noqa: E402

CHEAP = (
    "egs/csj/decode.py",
    "egs/csj/streaming_decode.py",
    "tools/show_results.py",
    "tools/learning_curves.py --from-json",
)


def cheap() -> list[Command]:
    """In the order of the documents: what is decoded before it is shown."""
    documents = ("README.md", "egs/csj/README.md", "egs/csj/RESULTS.md")
    found: dict[tuple[str, ...], Command] = {}
    for name in documents:
        for command in commands((ROOT / name).read_text(encoding="utf-8"), name):
            words = tuple(word for word in command.words if word != "python")
            # as slow as the audio; or of a model with a transducer, which is not made here
            left_out = "--realtime" in words or "EXP3" in words
            if not command.open and not left_out and " ".join(words).startswith(CHEAP):
                found.setdefault(words, command._replace(words=words))
    return list(found.values())


@pytest.fixture(scope="module")
def bundled(data: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "model.dualasr"
    bundle.main([str(trained), "--data-dir", str(data), "--out", str(path)])
    return path


def test_every_kind_is_there() -> None:
    programs = {command.words[0] for command in cheap()}
    assert programs == {kind.split()[0] for kind in CHEAP}


@pytest.mark.parametrize("command", cheap(), ids=lambda c: f"{c.document}:{c.line}")
def test_a_cheap_command_runs(
    command: Command, data: Path, trained: Path, bundled: Path, tmp_path: Path
) -> None:
    filled = {
        "EXP": trained,
        "DATA": data,
        "model.dualasr": bundled,
        "model16.dualasr": bundled,
        "OUT": tmp_path,
    }
    words = [str(filled.get(word, word)) for word in command.words]
    outcome = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert "CER" in outcome.stdout + outcome.stderr
