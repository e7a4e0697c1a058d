"""What comes along when somebody recognises, or only asks for help: each in a process of its own.

Whoever recognises needs torch, numpy, sentencepiece; not the trainer, nor what reads corpora, nor
k2 and kaldifeat before a search or an extractor is made. Whoever asks for help, or gives a wrong
option, needs none of these.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "dualasr_lib"
RECOGNITION = sorted((PACKAGE / "recognition").rglob("*.py"))
PROGRAMS = sorted((PACKAGE / "programs").rglob("*.py"))

TRAINER = ("dualasr_lib.experiment", "dualasr_lib.recipe", "dualasr_lib.programs")
SETTINGS = {
    f"dualasr_lib.training{name}"
    for name in ("", ".adamw", ".clipping", ".fit_config", ".optim", ".scaled_adam", ".schedule")
}
"""All that recognition may see of training: what a checkpoint's configuration is made of."""
FOREIGN = ("tensorboard", "lhotse", "kaldifeat", "_kaldifeat", "k2", "matplotlib", "scipy")
HEAVY = ("torch", "numpy", "sentencepiece", "soundfile", "soxr", "tqdm", *FOREIGN)

LIGHT = ["core/program.py", "core/config.py", "core/progress.py", "core/table.py", "core/files.py"]
LIGHT += ["lattice/options.py", "lattice/path.py", "decoding/endpoint.py"]
LIGHT += ["core/container.py", "recognition/bundle.py", "recognition/card.py"]
LIGHT += ["recognition/decode_config.py", "recognition/naming.py"]
LIGHT_FILES = [PACKAGE / name for name in LIGHT] + PROGRAMS
LIGHT_FILES += [path for path in RECOGNITION if path.parent.name == "methods"]


WITHOUT = ("lhotse", "lilcom", "tensorboard", "k2", "kaldingram", "kaldialign")
WITHOUT += ("matplotlib", "scipy", "soundfile")
_RECOGNISE = f"""
import sys
for name in {WITHOUT!r}:
    sys.modules[name] = None
import numpy as np
from dualasr_lib.recognition.recogniser import Recogniser
recogniser = Recogniser.load(sys.argv[1], device="cpu")
print(recogniser.rules.second_pass is not None, recogniser.weights)
samples = 0.2 * np.sin(np.cumsum(np.linspace(0.1, 2, 32000)))
print(bool(recogniser.transcribe(samples, 8000).text))
"""


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(*names: str) -> set[str]:
    """All modules of a process that imports `names`."""
    code = f"import sys, json, {', '.join(names)}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return set(json.loads(done.stdout.splitlines()[-1]))


def of(modules: set[str], *packages: str) -> set[str]:
    """Those of `modules` that belong to one of `packages`."""
    return {name for name in modules for top in packages if f"{name}.".startswith(f"{top}.")}


def test_recognition_brings_no_trainer_no_corpora_and_no_lattices() -> None:
    pytest.importorskip("sentencepiece")
    found = imported(*map(module, RECOGNITION))
    assert of(found, *TRAINER, *FOREIGN) == set()
    assert of(found, "dualasr_lib.training") - SETTINGS == set()
    assert of(found, "torch.utils.tensorboard", "dualasr_lib.data.datamodule") == set()


def test_the_runtime_brings_no_torch() -> None:
    """Nor what needs it: all that a recogniser of an exported set is made of."""
    for library in ("sentencepiece", "onnxruntime", "kaldi_native_fbank", "soundfile"):
        pytest.importorskip(library)
    names = [f"dualasr_lib.{name}" for name in ("runtime.opening", "recognition.recogniser")]
    names += ["dualasr_lib.decoding.pool", "dualasr_lib.data.audio", "dualasr_lib.data.resample"]
    found = imported(*names, *map(module, PROGRAMS))
    assert of(found, "torch", "onnx", *FOREIGN, *TRAINER[:2], "dualasr_lib.model") == set()
    assert of(found, "onnxruntime")


def test_options_are_read_without_anything_heavy() -> None:
    found = imported(*map(module, LIGHT_FILES))
    assert of(found, *HEAVY, "torch.utils") == set()


def test_a_bundle_is_enough_to_recognise(tmp_path: Path) -> None:
    """Where nothing reads corpora or writes boards, and k2 is missing: greedily, which is said."""
    pytest.importorskip("sentencepiece")
    from random_model import trained_model, write_home

    from dualasr_lib.recognition.bundle import write_bundle
    from dualasr_lib.recognition.bundling import BundleJob, make_bundle

    home = write_home(tmp_path, trained_model())
    bundle = make_bundle(BundleJob(exp_dir=home.exp, data_dir=home.data))
    write_bundle(bundle, tmp_path / "x.dualasr")
    done = subprocess.run(
        [sys.executable, "-c", _RECOGNISE, str(tmp_path / "x.dualasr")], capture_output=True,
        text=True, check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True weights: epoch-1.pt; two-pass: greedy", "True"]
    assert done.stderr.count("k2 is not installed: both passes search greedily") == 1


def test_a_planted_import_is_found() -> None:
    pytest.importorskip("lhotse")
    found = imported("dualasr_lib.core.config", "dualasr_lib.data.datamodule")
    assert of(found, *FOREIGN) and of(found, *HEAVY)
