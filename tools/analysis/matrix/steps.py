"""What is done for a run, step by step: the commands of the programs that users run by hand.

train        egs/csj/train.py
decode       egs/csj/decode.py, all branches and methods, valid and the evaluation splits
stream       egs/csj/streaming_decode.py: the streaming branch chunk by chunk, for its latency
similarity   tools/similarity.py: how alike the branches are, if there are two
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

from analysis.matrix.folder import Record
from analysis.matrix.plan import MatrixConfig, Run
from dualasr_lib.core.checkpoint import newest
from dualasr_lib.recognition.methods.registry import DEFAULT, METHODS

__all__ = ["Step", "Workplace", "steps", "stream_method"]

_ROOT = Path(__file__).resolve().parents[3]


class Workplace(NamedTuple):
    """Where and on what runs are made."""

    out: Path
    data_dir: Path
    device: str
    """cpu, cuda or auto."""
    device_name: str
    """What that is, for reports."""


class Step(NamedTuple):
    """One command."""

    name: str
    command: tuple[str, ...]
    asked: dict[str, Any]
    """What decides its result beside the run's configuration: if it changes, the step is done
    again."""

    def is_done(self, record: Record) -> bool:
        """Whether it is done, for the same."""
        return record.steps.get(self.name, {}).get("asked") == self.asked


def steps(run: Run, matrix: MatrixConfig, place: Workplace) -> list[Step]:
    """All steps of a run, in their order."""
    branches = run.cell.experiment(run.seed).model.branches
    splits = ["valid", *matrix.splits]
    methods = list(matrix.methods_of(run.cell.config))
    data = ("--data-dir", str(place.data_dir), "--exp-dir", str(place.out / run.name))
    device = ("--device", place.device)
    train = (
        *("--config", str(run.cell.file), "--base", str(run.cell.base)),
        *("--set", *run.cell.set, f"training.seed={run.seed}"),
        *(part for first in run.before() for part in ("--init-from", _weights(first, place))),
    )
    decode = ("--split", *splits, "--branch", *branches, "--method", *methods)
    found = [
        Step(
            "train",
            _command("egs/csj/train.py", *train, *data, *device),
            {"start": run.before()[0].name} if run.before() else {},
        ),
        Step(
            "decode",
            _command("egs/csj/decode.py", *decode, *data, *device),
            {"splits": splits, "methods": methods},
        ),
    ]
    if "streaming" in branches:
        method = stream_method(run, matrix)
        stream = ("--split", *matrix.splits, "--method", method, "--num-streams", "8")
        command = _command("egs/csj/streaming_decode.py", *stream, *data, *device)
        other = {} if method == DEFAULT else {"method": method}
        found.append(Step("stream", command, {"splits": list(matrix.splits), **other}))
    if len(branches) == 2:
        command = _command("tools/similarity.py", "--split", "valid", *data, *device)
        found.append(Step("similarity", command, {"split": "valid"}))
    return found


def stream_method(run: Run, matrix: MatrixConfig) -> str:
    """What a run's streaming branch is decoded with chunk by chunk: `DEFAULT`, where its cell has
    it or nothing else that streams.
    """
    methods = matrix.methods_of(run.cell.config)
    able = [method for method in methods if METHODS[method].stream is not None]
    return DEFAULT if DEFAULT in methods or not able else able[0]


def _weights(run: Run, place: Workplace) -> str:
    """The newest checkpoint of a run; a name that does not exist, if it has none yet."""
    folder = place.out / run.name
    return str(newest(folder) or folder / "not trained yet")


def _command(program: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, str(_ROOT / program), *arguments)
