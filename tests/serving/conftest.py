"""A bundle of random weights, a server with it, and speech-like samples."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

for _library in ("starlette", "uvicorn", "websockets", "prometheus_client", "sentencepiece"):
    pytest.importorskip(_library)
pytest.importorskip("soundfile")
sys.path[:0] = [str(Path(__file__).parents[1] / "recognition"), str(Path(__file__).parent)]

from random_model import trained_model, write_home  # noqa: E402
from running import Running, running  # noqa: E402

from dualasr_lib.recognition.bundle import write_bundle  # noqa: E402
from dualasr_lib.recognition.bundling import BundleJob, make_bundle  # noqa: E402


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    home = write_home(folder, trained_model())
    path = folder / "random.dualasr"
    write_bundle(make_bundle(BundleJob(exp_dir=home.exp, data_dir=home.data)), path)
    return path


@pytest.fixture(scope="session")
def server(bundle: Path) -> Iterator[Running]:
    """One for all tests that leave it as it was."""
    with running(bundle, "--limit", "start_seconds=4", "--limit", "idle_seconds=6",
                 "--limit", "close_seconds=1", "--limit", "streams=6",
                 "--limit", "ahead_seconds=5") as made:  # fmt: skip
        yield made


@pytest.fixture(scope="session")
def samples() -> bytes:
    """4 s of tones that change, 16 kHz, s16le."""
    rng = np.random.default_rng(3)
    pitch = np.repeat(rng.uniform(0.02, 1.5, 20), 3200)
    return (0.3 * 32767 * np.sin(np.cumsum(pitch))).astype("<i2").tobytes()
