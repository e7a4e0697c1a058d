"""Two processes distil as one does with the joined batch (gloo, unequal shares), and neither waits
for one that ran out of memory."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from dualasr_lib.model.all_ranks import rows_of_all_ranks

_ROOT = Path(__file__).parents[2]
_HERE = Path(__file__).parent

SETTINGS: list[dict[str, Any]] = [
    {},
    {"centre": True, "detach_teacher": False},
    {"direction": "both", "detach_teacher": True},
    {"gather": False},
]

needs_ranks = pytest.mark.skipif(not distributed.is_available(), reason="torch without distributed")


def _run(program: str, *arguments: str, size: int) -> None:
    """Runs `program` on `size` ranks, all of which must end well."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = os.pathsep.join(str(folder) for folder in (_ROOT, _HERE, _ROOT / "tests" / "training"))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(_HERE / program), *arguments]
    ranks = []
    for rank in range(size):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
        own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        ranks.append(subprocess.Popen(command, env=environment | (own if size > 1 else {})))
    try:
        assert [process.wait(timeout=120) for process in ranks] == [0] * size
    finally:
        for process in ranks:
            process.kill()


def _distil(output: Path, size: int) -> list[list[dict[str, Any]]]:
    """What each of `size` ranks found, for each of SETTINGS."""
    _run("distilling_ranks.py", str(output), json.dumps(SETTINGS), size=size)
    return [torch.load(output.with_suffix(f".{rank}.pt")) for rank in range(size)]


@needs_ranks
def test_two_ranks_equal_one_with_the_joined_batch(tmp_path: Path) -> None:
    """Losses and gradients of two steps; the ranks have 1 and 3 utterances."""
    (alone,) = _distil(tmp_path / "one", size=1)
    first, second = _distil(tmp_path / "two", size=2)
    for one, a, b in list(zip(alone, first, second))[:-1]:
        assert len(one) == 2 * (1 + 8) + 1 and one.keys() == a.keys()
        for name, value in one.items():
            torch.testing.assert_close(a[name], value, rtol=1e-9, atol=1e-12)
            assert name == "evaluation" or torch.equal(b[name], a[name])
    assert float(first[-1]["loss 0"]) == 0.0, "an utterance on its own gives nothing"
    assert float(second[-1]["loss 0"]) > 0.0


@needs_ranks
def test_no_rank_waits_for_one_that_ran_out_of_memory(tmp_path: Path) -> None:
    """Before, between and behind the exchanges of both passes: all give up the step together."""
    _run("failing_ranks.py", str(tmp_path), size=2)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    events = [line for line in lines if line.get("event") == "skipped"]
    assert [event["step"] for event in events] == [2, 3, 4, 5]
    assert all("out of memory" in event["reason"] for event in events)
    assert [event["ids"] for event in events] == [[f"epoch0-batch{n}"] for n in range(1, 5)]


def test_alone_the_rows_are_those_of_this_process() -> None:
    rows = torch.randn(3, 4)
    assert rows_of_all_ranks(rows) is rows
