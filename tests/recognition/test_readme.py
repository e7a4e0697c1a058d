"""The lines of Python in README.md do what they say, with the model that comes with the package."""

import textwrap
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sentencepiece")
pytest.importorskip("soxr")

import soundfile

README = Path(__file__).parents[2] / "README.md"


def python_block() -> str:
    """The indented lines from the first import of the package on."""
    lines = README.read_text(encoding="utf-8").splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("    from dualasr_lib"))
    last = next(i for i in range(first, len(lines)) if not lines[i].startswith("    "))
    return textwrap.dedent("\n".join(lines[first:last]))


def test_three_lines_from_a_file_to_a_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tones = np.repeat(np.random.default_rng(7).uniform(100, 6000, 30), 1600)
    samples = 0.2 * np.sin(2 * np.pi * np.cumsum(tones) / 16000)
    soundfile.write(tmp_path / "talk.wav", samples, 16000, "FLOAT")
    monkeypatch.chdir(tmp_path)
    code, found = python_block(), dict[str, object]()
    assert len(code.splitlines()) == 3
    exec(code, found)
    printed = capsys.readouterr().out
    assert printed.strip()
    recogniser = found["recogniser"]
    assert printed.strip() == recogniser.transcribe(samples.astype(np.float32), 16000).text  # type: ignore[attr-defined]
