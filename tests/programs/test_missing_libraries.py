"""A program that lacks a library says in one line which extra of the package brings it."""

from pathlib import Path

import pytest
from test_options import ROOT, run
from test_package import BY_HAND, MODULES, libraries, project, requirements

from dualasr_lib.core.extras import EXTRAS, remedy
from dualasr_lib.recognition.default import default_bundle

NAMES = {**MODULES, "pyopenjtalk": "pyopenjtalk-plus"} | {
    name: name.replace("_", "-") for name in ("prometheus_client", "sherpa_onnx")
}
"""Module -> what PyPI calls it."""
MODEL = str(default_bundle())
CONFIG = str(ROOT / "egs/csj/conf/demo.toml")
TRAIN = ("egs/csj/train.py", "--config", CONFIG, "--data-dir", "D", "--exp-dir", "E")
DECODE = ("egs/csj/decode.py", "--bundle", MODEL, "--data-dir", "D", "--split", "eval1",
          "--branch", "full", "--method", "greedy", "--out-dir", "{tmp}/out")  # fmt: skip
PREPARE = ("egs/csj/local/corpus.py", "--csj-dir", ".", "--data-dir", "{tmp}/data")
EXPORT = ("dualasr_lib/programs/export.py", "--bundle", MODEL, "--out", "{tmp}/x")
RUNTIME = (*EXPORT, "--format", "runtime")
BUNDLE = ("dualasr_lib/programs/bundle.py", "E", "--data-dir", "D", "--out", "{tmp}/x.dualasr")
SERVE = ("dualasr_lib/programs/serve.py", "--port", "0")
TRANSCRIBE = ("dualasr_lib/programs/transcribe.py", "{tmp}/x.wav")
CORPUS = ("tools/make_open_corpus.py", "--preset", "quick", "--out", "{tmp}/corpus")


def test_the_table_is_that_of_the_package() -> None:
    """Every library that anything here imports, with all extras that bring it."""
    found = {
        library: {
            extra
            for extra in project()["optional-dependencies"]
            if NAMES.get(library, library) in requirements(extra)
        }
        for library in EXTRAS
    }
    assert {library: set(extras) for library, extras in EXTRAS.items()} == found
    package = libraries(set((ROOT / "dualasr_lib").rglob("*.py")))
    assert package - {"numpy", "tqdm"} <= set(EXTRAS)
    assert "k2" in BY_HAND and remedy("k2") == "bash tools/setup.sh"
    assert remedy("no_such_library") == ""


@pytest.mark.parametrize(
    ("command", "library", "extra"),
    [
        (TRAIN, "lhotse", "train"),
        (TRAIN, "tensorboard", "train"),
        (TRAIN, "torch", "train"),
        (DECODE, "lhotse", "data"),
        (DECODE, "sentencepiece", "data"),
        (PREPARE, "lhotse", "data"),
        (EXPORT, "onnx", "export"),
        (EXPORT, "torch", "export"),
        (RUNTIME, "onnx", "export"),
        (BUNDLE, "torch", "recognise"),
        (SERVE, "starlette", "serve"),
        (SERVE, "uvicorn", "serve"),
        (SERVE, "websockets", "serve"),
        (SERVE, "prometheus_client", "serve"),
        (TRANSCRIBE, "torch", "recognise"),
        (TRANSCRIBE, "soundfile", "recognise"),
        (CORPUS, "pyopenjtalk", "corpus"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0].rpartition("/")[2],
)
def test_a_missing_library_is_one_line(
    command: tuple[str, ...], library: str, extra: str, tmp_path: Path
) -> None:
    for other in (name for name, extras in EXTRAS.items() if extra in extras):
        pytest.importorskip(other)  # else it would be the one that is named
    (tmp_path / "x.wav").write_bytes(b"RIFF")
    program, *arguments = (word.format(tmp=tmp_path) for word in command)
    found = run(program, *arguments, blocked=(library,))
    assert found.returncode == 1, found.stderr
    said = found.stderr.splitlines()[-1]
    assert f"the library {library}" in said and f"pip install 'dualasr[{extra}]'" in said
    assert "Traceback" not in found.stderr
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".onnx", ".dualasr")]
