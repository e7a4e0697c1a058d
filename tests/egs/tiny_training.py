"""A model that trains in seconds, and how tests start the programs of egs/."""

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["ENVIRONMENT", "ROOT", "prepare", "run", "train_arguments"]

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}
_STACK = (
    '[{"layers": 1, "downsampling": 2, "layer": {"dim": 16, "feedforward": 16, "kernel": 3, '
    '"attention": {"heads": 2, "query_head_dim": 4, "value_head_dim": 4, "position_dim": 8}}}]'
)
_TINY = (
    "model.subsampling.channels=[2, 3, 4]",
    f"model.streaming={_STACK}",
    f"model.full={_STACK}",
    'model.heads.attention={"layers": 1, "dim": 16, "heads": 2, "feedforward": 16}',
    "loss.distillation.warm_up=5",
    "data.augment.spec_augment_prob=0.5",
    "training.max_steps=72",
    "training.save_every=8",
    "training.log_every=4",
    "training.validate_every=0",
)


def run(
    program: str, *arguments: object, check: bool = True, recipe: str = "csj"
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "egs" / recipe / program), *map(str, arguments)]
    result = subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=280
    )
    assert not check or result.returncode == 0, result.stderr
    return result


def prepare(csj: Path, data: Path) -> None:
    command = ["bash", str(ROOT / "egs/csj/prepare.sh"), "--csj-dir", str(csj), "--open"]
    subprocess.run([*command, "--data-dir", str(data)], env=ENVIRONMENT, check=True)


def train_arguments(data: Path, exp: Path) -> list[object]:
    config = ROOT / "egs/csj/conf/demo.toml"
    return ["--config", config, "--data-dir", data, "--exp-dir", exp, "--set", *_TINY]
