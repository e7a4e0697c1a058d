"""Two processes make the update that one makes with the joined batch (gloo), in trouble too."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import distributed, nn

from dualasr_lib.core import archive
from dualasr_lib.core import checkpoint as checkpoints
from dualasr_lib.training.distributed import World, send_weights
from dualasr_lib.training.lock import sole_run

_ROOT = Path(__file__).parents[2]
_PROGRAM = Path(__file__).with_name("two_ranks.py")

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch without distributed")


class _Ended(NamedTuple):
    code: int
    errors: str


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(_ROOT), str(_PROGRAM.parent)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def _run_alone(directory: Path, *options: object) -> None:
    command = [sys.executable, str(_PROGRAM), str(directory), *map(str, options)]
    subprocess.run(command, env=_environment(), check=True, timeout=120)


def _run_two(directory: Path, *options: object, second: Path | None = None) -> list[_Ended]:
    """Rank 1 works in `second`, if given."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = []
    for rank, own in (("0", directory), ("1", second or directory)):
        command = [sys.executable, str(_PROGRAM), str(own), *map(str, options)]
        settings = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
        settings |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        environment = _environment() | settings
        ranks.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    errors = [process.communicate(timeout=120)[1] for process in ranks]
    return [_Ended(process.returncode, text) for process, text in zip(ranks, errors)]


def _succeed(directory: Path, *options: object) -> None:
    ended = _run_two(directory, *options)
    assert [rank.code for rank in ended] == [0, 0], ended


def _model(directory: Path) -> dict[str, torch.Tensor]:
    path = checkpoints.newest(directory)
    assert path is not None
    return checkpoints.load(path).model


def _lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]


def _losses(directory: Path) -> dict[int, Any]:
    return {
        line["step"]: (line["train/loss"], line["train/error"])
        for line in _lines(directory)
        if "train/loss" in line
    }


def _assert_same(directory: Path, expected: Path) -> None:
    one, two = _model(expected), _model(directory)
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-9, atol=1e-9)
    losses, wanted = _losses(directory), _losses(expected)
    assert losses.keys() == wanted.keys()
    for step, values in wanted.items():
        assert losses[step] == pytest.approx(values, rel=1e-9)


def test_two_ranks_equal_one_with_the_joined_batch(tmp_path: Path) -> None:
    """Ranks have unequal shares (2 and 4 items); one is stopped half-way and resumed."""
    _run_alone(tmp_path / "one")
    _succeed(tmp_path / "two", "--steps", 7)
    _succeed(tmp_path / "two")
    assert list(_losses(tmp_path / "two")) == list(range(1, 13))
    _assert_same(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize("first", [1, 2])
def test_another_number_of_ranks_goes_on_in_mid_epoch(tmp_path: Path, first: int) -> None:
    """It was refused. The batches share out what is left, and the log says so."""
    _run_alone(tmp_path / "one")
    if first == 2:
        _succeed(tmp_path / "two", "--steps", 7)
        command = [sys.executable, str(_PROGRAM), str(tmp_path / "two")]
        errors = subprocess.run(
            command, env=_environment(), check=True, capture_output=True, text=True, timeout=120
        ).stderr
    else:
        _run_alone(tmp_path / "two", "--steps", 7)
        ended = _run_two(tmp_path / "two")
        assert [rank.code for rank in ended] == [0, 0], ended
        errors = ended[0].errors
    assert f"saved by a run of {first} processes, going on with {3 - first}" in errors
    assert "left of epoch 1, in the same order" in errors
    assert list(_losses(tmp_path / "two")) == list(range(1, 13))
    _assert_same(tmp_path / "two", tmp_path / "one")


@pytest.mark.skipif(torch.__version__ < "2", reason="torchrun of torch 1.13.1 needs Python < 3.11")
def test_torchrun_starts_the_ranks_and_stops_them_when_one_fails(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc_per_node", "2", str(_PROGRAM)]
    failing = [str(tmp_path / "two"), "--trouble", "error"]
    failed = subprocess.run(
        torchrun + failing, env=_environment(), capture_output=True, text=True, timeout=120
    )
    assert failed.returncode != 0
    assert "something else" in failed.stderr
    whole = [str(tmp_path / "two")]
    subprocess.run(torchrun + whole, env=_environment(), check=True, timeout=120)
    _run_alone(tmp_path / "one")
    _assert_same(tmp_path / "two", tmp_path / "one")


def test_two_ranks_that_accumulate_equal_one_with_the_joined_batch(tmp_path: Path) -> None:
    """Batches 0+1, 2+3 and 4 of each epoch, by both ranks, are a step."""
    _run_alone(tmp_path / "one", "--join", 2)
    _succeed(tmp_path / "two", "--accumulate", 2)
    assert len(_losses(tmp_path / "two")) == 12
    _assert_same(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize(
    ("accumulate", "trouble"), [(1, "backward"), (2, "forward"), (1, "between")]
)
def test_all_ranks_skip_a_batch_that_one_has_no_memory_for(
    tmp_path: Path, accumulate: int, trouble: str
) -> None:
    """Before, between and after the exchanges of the objective, where the other rank waits."""
    _run_alone(tmp_path / "one", "--join", accumulate, "--trouble", trouble)
    _succeed(tmp_path / "two", "--accumulate", accumulate, "--trouble", trouble)
    [event] = [line for line in _lines(tmp_path / "two") if line.get("event") == "skipped"]
    assert (event["step"], event["ids"]) == (4 // accumulate, ["epoch0-batch3"])
    assert "you tried to allocate" in event["reason"]
    _assert_same(tmp_path / "two", tmp_path / "one")


def test_a_bad_loss_of_one_rank_is_kept_by_that_rank(tmp_path: Path) -> None:
    _run_alone(tmp_path / "one", "--trouble", "nan")
    _succeed(tmp_path / "two", "--trouble", "nan")
    [event] = [line for line in _lines(tmp_path / "two") if line.get("event") == "skipped"]
    name = "bad/step-00000004-rank-1.pt"
    assert (event["ids"], event["files"]) == (["epoch0-batch3"], [name])
    assert [path.name for path in (tmp_path / "two/bad").iterdir()] == [Path(name).name]
    [batch] = archive.read(tmp_path / "two" / name)["batches"]
    assert batch["fields"]["inputs"].shape == (4, 5)  # the share of rank 1
    _assert_same(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize(
    ("trouble", "messages"),
    [
        ("forward", [r"1 steps of epoch 0 .*`max_oom_steps` is 0.*epoch0-batch3"] * 2),
        ("error", ["", "RuntimeError: something else"]),
    ],
)
def test_no_rank_waits_for_one_that_ended(
    tmp_path: Path, trouble: str, messages: list[str]
) -> None:
    """Too little memory ends all ranks, with the batch named; so does any error of one."""
    ended = _run_two(tmp_path, "--trouble", trouble, "--limit", 0)
    for rank, message in zip(ended, messages):
        assert rank.code != 0
        assert re.search(message, rank.errors), rank.errors
    path = checkpoints.newest(tmp_path)
    assert path is not None
    assert checkpoints.load(path).step == 3  # a resume goes on from there


def test_ranks_that_see_different_checkpoints_end(tmp_path: Path) -> None:
    _succeed(tmp_path / "one", "--steps", 3)
    ended = _run_two(tmp_path / "one", second=tmp_path / "two")
    for rank in ended:
        assert rank.code != 0
        assert "all ranks must see the same checkpoint folder" in rank.errors
        assert "rank 0: epoch-0-step-3.pt (step 3, epoch 0); rank 1: no checkp" in rank.errors


def test_a_second_run_of_two_ranks_ends_on_both(tmp_path: Path) -> None:
    with sole_run(tmp_path, World()):
        ended = _run_two(tmp_path)
    for rank in ended:
        assert rank.code != 0
        assert f"another one is writing into {tmp_path}" in rank.errors


class _WithCounter(nn.Linear):
    """Its state dict holds a count on the CPU, as that of `Scheduled` does."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "step"] = torch.tensor(3)


def test_only_what_lies_on_the_device_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """nccl cannot send what lies elsewhere."""
    sent: list[torch.Tensor] = []
    monkeypatch.setattr(distributed, "broadcast", lambda value, src: sent.append(value))
    model = nn.Sequential(_WithCounter(2, 3), nn.BatchNorm1d(3)).to("meta")
    send_weights(model, World(size=2))
    assert {value.device.type for value in sent} == {"meta"}
    wanted = [*model.parameters(), *model.buffers()]
    assert sorted(map(id, sent)) == sorted(map(id, wanted))
    assert len(wanted) == 7
    send_weights(model, World())
    assert len(sent) == 7
