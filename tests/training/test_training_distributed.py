"""Two processes make the update that one makes with the joined batch (gloo), in trouble too."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import distributed

from dualasr_lib.core import archive
from dualasr_lib.core import checkpoint as checkpoints
from dualasr_lib.training.distributed import World
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
    port = _free_port()
    ranks = []
    for rank, own in (("0", directory), ("1", second or directory)):
        command = [sys.executable, str(_PROGRAM), str(own), *map(str, options)]
        settings = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
        settings |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        environment = _environment() | settings
        ranks.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    errors = [process.communicate(timeout=120)[1] for process in ranks]
    return [_Ended(process.returncode, text) for process, text in zip(ranks, errors)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


@pytest.mark.skipif(torch.__version__ < "2", reason="torchrun of torch 1.13.1 needs Python < 3.11")
@pytest.mark.parametrize(
    "restarts",
    [
        0,
        pytest.param(
            2,
            marks=pytest.mark.skipif(
                "DUALASR_DRILLS" not in os.environ, reason="takes minutes: DUALASR_DRILLS=1"
            ),
        ),
    ],
)
def test_two_machines_of_which_one_dies(tmp_path: Path, restarts: int) -> None:
    """Two launches that meet at an address, as on two machines, and kill -9 of one's process."""
    start = time.monotonic()
    codes, errors = _two_launches(tmp_path / "two", restarts)
    if not restarts:
        assert 0 not in codes, errors
        assert time.monotonic() - start < 100
        assert "lost the others" in errors
        return
    assert 0 in codes, errors  # the launch that keeps the address may end first: the other says so
    assert "to find one another" not in errors
    _run_alone(tmp_path / "one")
    _assert_same(tmp_path / "two", tmp_path / "one")


def _two_launches(directory: Path, restarts: int) -> tuple[list[int], str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
    torchrun += ["--nproc_per_node", "1", "--max_restarts", str(restarts)]
    torchrun += ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{_free_port()}"]
    command = [*torchrun, str(_PROGRAM), str(directory), "--trouble", "killed"]
    command += ["--patience", "60" if restarts else "20"]
    # torchrun would keep the addresses of processes that have ended, and others would read them:
    environment = _environment() | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    machines = [
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    errors = [machine.communicate(timeout=300 if restarts else 90)[1] for machine in machines]
    return [machine.returncode for machine in machines], "".join(errors)


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


@pytest.mark.parametrize("broken_off", [False, True])
def test_ranks_share_a_validation(tmp_path: Path, broken_off: bool) -> None:
    """They find what one finds alone, also when a signal to one of them has broken it off."""
    _run_alone(tmp_path / "one", "--validate")
    if broken_off:
        _succeed(tmp_path / "two", "--validate", "--trouble", "signal")
        assert not any("valid/error" in line for line in _lines(tmp_path / "two"))
        assert max(_losses(tmp_path / "two")) == 5  # the end of the first epoch
    _succeed(tmp_path / "two", "--validate")
    found, wanted = (
        [(line["step"], line["valid/error"]) for line in _lines(path) if "valid/error" in line]
        for path in (tmp_path / "two", tmp_path / "one")
    )
    assert [step for step, _ in wanted] == [5, 10, 12]
    assert found == [(step, pytest.approx(error, rel=1e-9)) for step, error in wanted]
    _assert_same(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize("trouble", ["killed", "stuck"])
def test_a_rank_that_is_gone_ends_the_others_with_a_message(tmp_path: Path, trouble: str) -> None:
    """Killed (noticed at once), or without an answer (noticed after `patience`)."""
    start = time.monotonic()
    ended = _run_two(tmp_path, "--trouble", trouble, "--patience", 4)
    assert time.monotonic() - start < 40
    assert ended[1].code == -signal.SIGKILL
    assert ended[0].code == 1
    assert re.search(
        r"process 0 of 2 lost the others: one of them ended .*did not answer in 4 s "
        r"\(training\.patience\); started again, the run goes on from its last checkpoint",
        ended[0].errors,
    ), ended[0].errors
    path = checkpoints.newest(tmp_path)
    assert path is not None
    assert checkpoints.load(path).step == 3
