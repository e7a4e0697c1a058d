"""Checkpoint files: atomic, checked, safe to load, named when damaged."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import flip_a_bit

from dualasr_lib.core import checkpoint as checkpoints
from dualasr_lib.core.checkpoint import Checkpoint, CheckpointError

_ROOT = Path(__file__).parents[2]


def _checkpoint(**changes: Any) -> Checkpoint:
    checkpoint = Checkpoint(
        step=12,
        epoch=3,
        model={"weight": torch.randn(30, 40), "count": torch.tensor(3)},
        average={"weight": torch.randn(30, 40, dtype=torch.float64)},
        average_count=4,
        config={"lr": 0.045, "sizes": [1, 2], "name": "日本語"},
        fingerprints={"tokenizer": "abc"},
        training={"optimizer": {0: {"step": 1.0}}, "position": None, "pair": (1, 2)},
    )
    return checkpoint._replace(**changes)


def test_round_trip(tmp_path: Path) -> None:
    saved = _checkpoint()
    checkpoints.save(saved, tmp_path / "epoch-3.pt")
    loaded = checkpoints.load(tmp_path / "epoch-3.pt")
    assert torch.equal(loaded.model["weight"], saved.model["weight"])
    assert loaded.average["weight"].dtype == torch.float64
    assert torch.equal(loaded.average["weight"], saved.average["weight"])
    assert loaded._replace(model={}, average={}) == saved._replace(model={}, average={})
    assert os.listdir(tmp_path) == ["epoch-3.pt"]


def test_the_file_is_tensors_and_plain_data(tmp_path: Path) -> None:
    """Torch's restricted reader takes it, and the tensors carry the names of the state dict."""
    checkpoints.save(_checkpoint(), tmp_path / "epoch-3.pt")
    payload = torch.load(tmp_path / "epoch-3.pt", weights_only=True)
    assert set(payload["tensors"]) == {"model/weight", "model/count", "average/weight"}
    assert '"lr": 0.045' in payload["plain"]


def test_names_give_the_order(tmp_path: Path) -> None:
    names = ["epoch-0-step-5.pt", "epoch-1.pt", "epoch-2.pt", "epoch-2-step-90.pt"]
    names += ["epoch-2-step-100.pt", "epoch-10.pt", "epoch-9-step-500.pt"]
    for name in [*names, "epoch-11.pt.tmp", "best.pt"]:
        (tmp_path / name).touch()
    assert checkpoints.newest(tmp_path) == tmp_path / "epoch-10.pt"
    (tmp_path / "epoch-10.pt").unlink()
    assert checkpoints.newest(tmp_path) == tmp_path / "epoch-9-step-500.pt"
    checkpoints.prune(tmp_path, keep_last=2, keep_epochs=1)
    left = {path.name for path in tmp_path.iterdir()}
    kept = {"epoch-2-step-100.pt", "epoch-9-step-500.pt", "epoch-2.pt"}
    assert left == {*kept, "best.pt"}  # and not what a killed save left behind


def test_prune_keeps_all_epochs_by_default(tmp_path: Path) -> None:
    for epoch in range(1, 6):
        (tmp_path / f"epoch-{epoch}.pt").touch()
    checkpoints.prune(tmp_path, keep_last=1, keep_epochs=0)
    assert len(list(tmp_path.iterdir())) == 5


def test_find_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no checkpoints"):
        checkpoints.find(tmp_path, None)
    (tmp_path / "epoch-2.pt").touch()
    assert checkpoints.find(tmp_path, 2) == checkpoints.find(tmp_path, None)
    with pytest.raises(CheckpointError, match=r"epoch-7\.pt is wanted.* has epoch-2\.pt"):
        checkpoints.find(tmp_path, 7)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "text"])
def test_a_damaged_file_is_named_and_the_one_before_is_offered(tmp_path: Path, damage: str) -> None:
    checkpoints.save(_checkpoint(), tmp_path / "epoch-1.pt")
    checkpoints.save(_checkpoint(), tmp_path / "epoch-1-step-20.pt")
    path = tmp_path / "epoch-2.pt"
    checkpoints.save(_checkpoint(), path)
    if damage == "flip":
        flip_a_bit(path)
    else:
        data = {"cut": path.read_bytes()[:-700], "empty": b"", "text": b"hello"}[damage]
        path.write_bytes(data)
    flip_a_bit(tmp_path / "epoch-1-step-20.pt")
    with pytest.raises(CheckpointError, match=r"epoch-2\.pt is damaged.*epoch-1\.pt is good"):
        checkpoints.load(path)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "epoch-1.pt")
    with pytest.raises(CheckpointError, match=r"epoch-1\.pt must have format 1, but has None"):
        checkpoints.load(tmp_path / "epoch-1.pt")


def test_a_file_with_code_in_it_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 1, "plain": Path("x"), "tensors": {}}, tmp_path / "epoch-1.pt")
    with pytest.raises(CheckpointError, match=r"epoch-1\.pt cannot be read"):
        checkpoints.load(tmp_path / "epoch-1.pt")


_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from dualasr_lib.core import checkpoint as checkpoints
folder = Path(sys.argv[1])
old = checkpoints.load(folder / "epoch-1.pt")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    big = old._replace(model={"weight": torch.randn(200_000), "more": torch.randn(300)})
    checkpoints.save(big, folder / "epoch-2.pt")
except checkpoints.CheckpointError as error:
    print(error)
"""


def test_a_full_disk_is_a_clear_error_and_leaves_the_last_one_intact(tmp_path: Path) -> None:
    """The kernel refuses to write more than 100 kB (torch 1.13.1 alone would abort here)."""
    checkpoints.save(_checkpoint(), tmp_path / "epoch-1.pt")
    result = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert "cannot write checkpoint" in result.stdout
    assert "File too large; the last good checkpoint is epoch-1.pt" in result.stdout
    assert os.listdir(tmp_path) == ["epoch-1.pt"]
    assert checkpoints.load(tmp_path / "epoch-1.pt").step == 12


def test_a_missing_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot write checkpoint .*No such file"):
        checkpoints.save(_checkpoint(), tmp_path / "nowhere" / "epoch-1.pt")
