"""The noise manifest: windows of 10 s, features that training mixes in, other formats refused."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lhotse")
pytest.importorskip("lilcom")
pytest.importorskip("_kaldifeat")
pytest.importorskip("soundfile")

import soundfile
from lhotse import CutSet

from dualasr_lib.data.augment import Augmenter
from dualasr_lib.data.data_config import AugmentConfig
from dualasr_lib.recipe.noise import main


def _write(path: Path, seconds: float, rate: int = 16000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(0).normal(0, 0.05, round(seconds * rate))
    soundfile.write(path, samples, rate)


def test_windows_and_their_use(tmp_path: Path) -> None:
    _write(tmp_path / "noise/free/a.wav", 26.0)
    _write(tmp_path / "noise/b.flac", 14.0)
    _write(tmp_path / "noise/short.wav", 4.0)
    data = tmp_path / "data"
    assert main(["--noise-dir", str(tmp_path / "noise"), "--data-dir", str(data)]) == 0
    manifest = data / "noise" / "noise_cuts.jsonl.gz"
    cuts = CutSet.from_jsonl(manifest).with_features_path_prefix(data).to_eager()
    assert [(cut.id, cut.duration) for cut in cuts] == [
        ("b-00000", 10.0),
        ("free-a-00000", 10.0),
        ("free-a-00010", 10.0),
        ("free-a-00020", 6.0),
    ]
    augmenter = Augmenter(AugmentConfig(noise_prob=1.0, noise_snr=(0.0, 0.0)), cuts)
    (mixed,) = augmenter.mix_noise(cuts.subset(first=1), (0, 0, 0))
    assert mixed.id == "b-00000"
    gain = mixed.load_features() - cuts["b-00000"].load_features()
    assert gain.mean() == pytest.approx(np.log(2), abs=0.2)  # equal energies at 0 dB


@pytest.mark.parametrize(("rate", "message"), [(8000, "at 8000 Hz"), (0, "has no WAV or FLAC")])
def test_unusable_noise_is_refused(
    tmp_path: Path, rate: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if rate:
        _write(tmp_path / "noise/a.wav", 6.0, rate)
    assert main(["--noise-dir", str(tmp_path / "noise"), "--data-dir", str(tmp_path)]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("noise.py: error: ")
    assert message in line
