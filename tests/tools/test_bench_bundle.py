"""tools/bench_bundle.py loads each file in a process of its own, and hears with it."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("sentencepiece")
sys.path.insert(0, str(Path(__file__).parents[1] / "recognition"))

import bench_bundle
from random_model import trained_model, write_home

from dualasr_lib.recognition.bundle import write_bundle
from dualasr_lib.recognition.bundling import BundleJob, make_bundle


def test_a_bundle_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = write_home(tmp_path, trained_model())
    bundle = make_bundle(BundleJob(exp_dir=home.exp, data_dir=home.data))
    write_bundle(bundle, tmp_path / "x.dualasr")
    name, size, *numbers = bench_bundle.measured(tmp_path / "x.dualasr", 0.5)
    assert (name, size) == ("x.dualasr", f"{(tmp_path / 'x.dualasr').stat().st_size / 1e6:.1f}")
    *seconds, imported, loaded, heard = map(float, numbers)
    assert min(seconds) >= 0 and 50 < imported <= loaded <= heard
    assert "x.dualasr: weights: epoch-1.pt; two-pass" in capsys.readouterr().err


def test_what_is_no_bundle_is_the_message(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(ValueError, match=r"x is no bundle of this program: it is empty"):
        bench_bundle.measured(tmp_path / "x", 0.5)
