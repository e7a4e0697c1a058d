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
    for name in (
        *("", ".adamw", ".clipping", ".fit_config", ".folding", ".freezing", ".initial"),
        *(".optim", ".scaled_adam", ".schedule"),
    )
}
"""All that recognition may see of training: what a checkpoint's configuration is made of."""
FOREIGN = ("tensorboard", "lhotse", "kaldifeat", "_kaldifeat", "k2", "matplotlib", "scipy")
HEAVY = ("torch", "numpy", "sentencepiece", "soundfile", "soxr", "tqdm", *FOREIGN)

LIGHT = ["core/program.py", "core/config.py", "core/progress.py", "core/table.py", "core/files.py"]
LIGHT += ["lattice/options.py", "lattice/path.py", "decoding/endpoint.py"]
LIGHT += ["recognition/decode_config.py", "recognition/naming.py"]
LIGHT_FILES = [PACKAGE / name for name in LIGHT] + PROGRAMS
LIGHT_FILES += [path for path in RECOGNITION if path.parent.name == "methods"]


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


def test_options_are_read_without_anything_heavy() -> None:
    found = imported(*map(module, LIGHT_FILES))
    assert of(found, *HEAVY, "torch.utils") == set()


def test_a_planted_import_is_found() -> None:
    pytest.importorskip("lhotse")
    found = imported("dualasr_lib.core.config", "dualasr_lib.data.datamodule")
    assert of(found, *FOREIGN) and of(found, *HEAVY)
