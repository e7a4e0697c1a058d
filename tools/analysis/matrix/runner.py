"""Runs the steps of all runs, some at a time; what is finished is not done again.

Each step is a process of its own with its output in <run>/<step>.log. A step that fails ends its
run, not the others. A signal stops everything: train.py saves, and the same command goes on.
"""

import json
import logging
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from bench.parameters import size

from analysis.matrix.folder import Record, differences, read_record, record_file, write_record
from analysis.matrix.plan import MatrixConfig, Run
from analysis.matrix.steps import Step, Workplace, steps
from dualasr_lib.configuration import build_model
from dualasr_lib.core.program import INTERRUPTED
from dualasr_lib.core.weights import load_weights
from dualasr_lib.data.tokenizer import Tokenizer

__all__ = ["Runner"]

_LOG = logging.getLogger(__name__)
_ROOT = Path(__file__).resolve().parents[3]
_LAST_LINES = 5


class Runner:
    """Does what is not done yet.

    Args:
        wanted: names of the steps to do; a run whose earlier steps are missing waits for them.
        data: fingerprint of the data.

    Raises:
        ValueError: a folder holds a run of another configuration or of other data.
    """

    def __init__(
        self,
        matrix: MatrixConfig,
        place: Workplace,
        wanted: Collection[str],
        data: dict[str, str],
        runs: Sequence[Run],
    ) -> None:
        self._matrix, self._place, self._wanted = matrix, place, wanted
        self._runs = runs
        self._records = {run.name: self._record(run, data) for run in runs}
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def execute(self, jobs: int) -> list[str]:
        """Runs everything, `jobs` runs at a time; what failed, a line each."""
        todo = [run for run in self._runs if self._missing(run)]
        _LOG.info("%d of %d runs are finished", len(self._runs) - len(todo), len(self._runs))
        failures, begun, done = [], time.monotonic(), 0
        with ThreadPoolExecutor(jobs) as pool:
            try:
                # What others start from comes first.
                for later in (False, True):
                    turn = [run for run in todo if bool(run.before()) == later]
                    futures = {pool.submit(self._run, run): run for run in turn}
                    for future in as_completed(futures):
                        problem, done = future.result(), done + 1
                        failures += [problem] if problem else []
                        left = (time.monotonic() - begun) / done * (len(todo) - done)
                        state = problem or f"{futures[future].name} finished"
                        _LOG.info("[%d of %d] %s, %.0f min left", done, len(todo), state, left / 60)
            except BaseException:
                self._stop()
                pool.shutdown(cancel_futures=True)
                raise
        return failures

    def _record(self, run: Run, data: dict[str, str]) -> Record:
        path = record_file(self._place.out, run.name)
        wanted = Record.of(run, data)
        found = read_record(path)
        if found is None:
            if any(path.parent.glob("epoch-*.pt")):
                raise ValueError(
                    f"{path.parent} holds checkpoints, but no {path.name} that says of what: move "
                    "it away, or give another --out"
                )
            return wanted
        other = differences(found, wanted)
        if other:
            raise ValueError(
                f"{path.parent} was made otherwise ({'; '.join(other[:3])}): move it away, or "
                "give another --out"
            )
        found.data |= wanted.data
        return found

    def _missing(self, run: Run) -> list[Step]:
        """The steps to do: those that are wanted and not done, or done for something else."""
        record = self._records[run.name]
        every = steps(run, self._matrix, self._place)
        return [s for s in every if s.name in self._wanted and not s.is_done(record)]

    def _run(self, run: Run) -> str | None:
        """All missing steps of a run; what went wrong."""
        try:
            while missing := self._missing(run):  # anew each time: training undoes what follows
                problem = self._do(run, missing[0])
                if problem:
                    return f"{run.name}: {problem}"
        except (OSError, ValueError) as error:
            return f"{run.name}: {error}"
        return None

    def _do(self, run: Run, step: Step) -> str | None:
        """One step, recorded if it went well; what went wrong."""
        record, folder = self._records[run.name], self._place.out / run.name
        if step.name == "train":
            for first in run.before():
                found = read_record(record_file(self._place.out, first.name))
                if found is None or "train" not in found.steps:
                    return f"it starts from {first.name}, which is not trained"
            record.steps = {}  # what follows is of the weights that there were
        elif "train" not in record.steps:
            return f"{step.name} needs a trained model, but step train is not done"
        write_record(record_file(self._place.out, run.name), record)
        begun, log, commit = time.monotonic(), folder / f"{step.name}.log", _commit()
        code = self._call(step, log)
        spent = record.spent.get(step.name, 0.0) + time.monotonic() - begun
        record.spent[step.name] = round(spent, 3)
        if code == 0:
            record.steps[step.name] = {
                **({"parameters": self._trained(run)} if step.name == "train" else {}),
                "command": shlex.join(step.command),
                "commit": commit,
                "device": self._place.device_name,
                "asked": step.asked,
            }
        write_record(record_file(self._place.out, run.name), record)
        if code != 0:
            last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
            ending = "".join(f"\n    {line}" for line in last)
            return f"{step.name} ended with exit code {code} ({log}):{ending}"
        _LOG.info("%s: %s, %.0f s", run.name, step.name, spent)
        return None

    def _trained(self, run: Run) -> int:
        """Parameters of the model.

        Raises:
            ValueError: it was trained with another configuration: a file has changed since.
        """
        weights = load_weights(self._place.out / run.name)
        wanted = self._records[run.name].config
        found = json.loads(json.dumps(weights.config))
        if found | {"initial": wanted["initial"]} != wanted:  # train.py fills that in
            raise ValueError(
                "the configuration files must stay as they are while a matrix runs, but the model "
                "was trained with another configuration than the one that was planned"
            )
        tokenizer = Tokenizer.load(self._place.data_dir / "lang")
        return size(build_model(run.cell.experiment(run.seed), tokenizer))

    def _call(self, step: Step, log: Path) -> int:
        with open(log, "ab") as output:
            with self._lock:
                if self._stopped:
                    return INTERRUPTED
                process = subprocess.Popen(step.command, stdout=output, stderr=subprocess.STDOUT)
                self._processes.add(process)
            try:
                return process.wait()
            finally:
                with self._lock:
                    self._processes.discard(process)

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._processes:
                process.send_signal(signal.SIGTERM)


def _commit() -> str:
    """The commit of the programs, with + if files differ from it; "unknown" without git."""
    try:
        head = _git("rev-parse", "--short", "HEAD")
        return f"{head}{'+' if _git('status', '--porcelain', '--untracked-files=no') else ''}"
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_ROOT), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()
