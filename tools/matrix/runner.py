"""Runs the steps of all runs, some at a time; what is finished is not done again.

Each step is a process of its own with its output in <run>/<step>.log. A step that fails ends its
run, not the others. A signal stops everything: train.py saves, and the same command goes on.
"""

import logging
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from benchmarks.parameters import size

from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.experiment import build_model
from matrix.folder import Record, differences, read_record, record_file, write_record
from matrix.plan import MatrixConfig, Run
from matrix.steps import Step, Workplace, steps

__all__ = ["Runner", "commit"]

_LOG = logging.getLogger(__name__)
_ROOT = Path(__file__).resolve().parents[2]
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
        self._commit = commit()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def execute(self, jobs: int) -> list[str]:
        """Runs everything, `jobs` runs at a time; what failed, a line each."""
        todo = [run for run in self._runs if self._missing(run)]
        _LOG.info("%d of %d runs are finished", len(self._runs) - len(todo), len(self._runs))
        failures, begun = [], time.monotonic()
        with ThreadPoolExecutor(jobs) as pool, _signals_as_interrupts():
            futures = {pool.submit(self._run, run): run for run in todo}
            try:
                for done, future in enumerate(as_completed(futures), start=1):
                    problem = future.result()
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
            return wanted
        other = differences(found, wanted)
        if other:
            raise ValueError(
                f"{path.parent} was made otherwise ({'; '.join(other[:3])}): move it away, or "
                "give another --out"
            )
        found.group = wanted.group
        return found

    def _missing(self, run: Run) -> list[Step]:
        """The steps to do: those that are wanted and not done, or done for something else."""
        done = self._records[run.name].steps
        return [
            step
            for step in steps(run, self._matrix, self._place)
            if step.name in self._wanted
            and (step.name not in done or done[step.name]["asked"] != step.asked)
        ]

    def _run(self, run: Run) -> str | None:
        """All missing steps of a run; what went wrong."""
        record, folder = self._records[run.name], self._place.out / run.name
        folder.mkdir(parents=True, exist_ok=True)
        for step in self._missing(run):
            if step.name != "train" and "train" not in record.steps:
                return f"{run.name}: {step.name} needs a trained model, but step train is not done"
            begun, log = time.monotonic(), folder / f"{step.name}.log"
            code = self._call(step, log)
            if code != 0:
                last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
                ending = "".join(f"\n    {line}" for line in last)
                return f"{run.name}: {step.name} ended with exit code {code} ({log}):{ending}"
            seconds = time.monotonic() - begun
            record.steps[step.name] = {
                "command": shlex.join(step.command),
                "commit": self._commit,
                "device": self._place.device,
                "seconds": round(seconds, 1),
                "asked": step.asked,
            }
            if step.name == "train":
                record.steps["train"]["parameters"] = self._parameters(run)
            write_record(record_file(self._place.out, run.name), record)
            _LOG.info("%s: %s, %.0f s", run.name, step.name, seconds)
        return None

    def _parameters(self, run: Run) -> int:
        tokenizer = Tokenizer.load(self._place.data_dir / "lang")
        return size(build_model(run.cell.experiment(run.seed), tokenizer))

    def _call(self, step: Step, log: Path) -> int:
        with open(log, "ab") as output:
            with self._lock:
                if self._stopped:
                    return 130
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


def commit() -> str:
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


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """Inside, SIGTERM is a KeyboardInterrupt, as SIGINT is."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
