"""tools/bad_inputs.py: its files are what their rows say."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("soundfile")
pytest.importorskip("soxr")

import soundfile
from analysis.odd_files import CASES


def test_files_are_what_they_are_called(tmp_path: Path) -> None:
    speech = np.random.default_rng(0).uniform(-0.1, 0.1, 8 * 16000).astype(np.float32)
    for case in CASES:
        case.make(tmp_path / case.name, speech)
    assert len({case.name for case in CASES}) == len(CASES)
    assert not (tmp_path / "missing.wav").exists()
    assert (tmp_path / "folder.wav").is_dir()
    assert (tmp_path / "empty.wav").stat().st_size == 0
    assert (tmp_path / "text.wav").read_text().startswith("text")
    shapes = {"none.wav": 0, "one.wav": 1, "short.wav": 1600, "silence.wav": 80000}
    for name, size in shapes.items():
        assert soundfile.info(tmp_path / name).frames == size
    assert not soundfile.read(tmp_path / "silence.wav")[0].any()
    assert np.isnan(soundfile.read(tmp_path / "nan.wav")[0]).sum() == 10
    assert soundfile.info(tmp_path / "six.wav").channels == 6
    assert soundfile.info(tmp_path / "stereo.wav").samplerate == 44100
