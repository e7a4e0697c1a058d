"""The making of a corpus: babble clips, then talks, shared out over processes; then the summaries.

Nothing depends on the order of the work, so any number of processes gives the same bytes. A run
that was stopped is taken up again by the same call.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from open_corpus.folder import CorpusFolder
from open_corpus.hts import Engine
from open_corpus.layout import is_dialogue
from open_corpus.neural import NeuralEngine
from open_corpus.plan import BabbleClip, Plan, Talk, babble_clips, check_speakers, talks
from open_corpus.report import Summary, check_groups, conditions, sources, summarise
from open_corpus.sources import voice_files
from open_corpus.workshop import Task, Workshop, open_prompts

__all__ = ["build_corpus"]

_BYTES_PER_SECOND = 32000
_FORMAT = 2
"""Raised when the same plan makes other bytes than before."""

Report = Callable[[str, float, float], None]
"""Called with the name of the stage, seconds of audio done and in all."""
_Makers = Callable[[Sequence[Task]], Iterator[Task]]
"""Makes the tasks and yields each when it is finished."""


def build_corpus(plan: Plan, out: Path, jobs: int, cache: Path, report: Report) -> Summary | None:
    """Make the corpus of `plan` in `out` with `jobs` processes; None if it was there already.

    Raises ValueError when `out` holds something else, RuntimeError when a program, package or the
    disk space is missing or a worker process died.
    """
    folder = CorpusFolder(out)
    parameters = {"format": _FORMAT, **plan.as_dict()}
    if folder.claim(parameters):
        return None
    all_talks = talks(plan)
    num_speakers = check_speakers(plan)
    new_clips = [clip for clip in babble_clips(plan) if not folder.has_clip(clip)]
    new_talks = [talk for talk in all_talks if not folder.has_talk(talk)]
    _check_space(out, new_talks)
    # Downloads and a missing library come to light here, before any worker process.
    Engine(voice_files(cache)).close()
    if plan.neural:
        NeuralEngine(cache)
    open_prompts(plan, folder, cache)
    with _makers(jobs, plan, folder, cache) as make:
        _stage("babble", new_clips, plan, make, report)
        _stage("talks", new_talks, plan, make, report)
    records = [folder.record(talk) for talk in all_talks]
    check_groups(records)
    summary = summarise(records, out, num_speakers)
    folder.write_json("conditions.json", conditions(records))
    folder.write_json("SOURCES.json", sources(plan, records, summary))
    folder.finish(parameters)
    return summary


def _stage(name: str, tasks: Sequence[Task], plan: Plan, make: _Makers, report: Report) -> None:
    if not tasks:
        return
    total, done = sum(_cost(task, plan) for task in tasks), 0.0
    report(name, done, total)
    for task in make(sorted(tasks, key=lambda task: -_cost(task, plan))):
        done += _cost(task, plan)
        report(name, done, total)


@contextlib.contextmanager
def _makers(jobs: int, plan: Plan, folder: CorpusFolder, cache: Path) -> Iterator[_Makers]:
    """One worker here, or `jobs` worker processes."""
    if jobs == 1:
        workshop = Workshop(plan, folder, cache)

        def make_here(tasks: Sequence[Task]) -> Iterator[Task]:
            for task in tasks:
                workshop.make(task)
                yield task

        yield make_here
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, spawn, _open_workshop, (plan, folder, cache)) as pool:

        def make_there(tasks: Sequence[Task]) -> Iterator[Task]:
            futures = {pool.submit(_make, task): task for task in tasks}
            for future in as_completed(futures):
                future.result()
                yield futures[future]

        try:
            yield make_there
        except BrokenProcessPool as error:
            reason = "a worker process died (out of memory?); the same command goes on"
            raise RuntimeError(reason) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_workshops: list[Workshop] = []
"""One in a worker process, none elsewhere: what a pool's initialiser makes has no other place."""


def _open_workshop(plan: Plan, folder: CorpusFolder, cache: Path) -> None:
    _workshops.append(Workshop(plan, folder, cache))


def _make(task: Task) -> None:
    _workshops[0].make(task)


def _cost(task: Task, plan: Plan) -> float:
    """Seconds of audio to be made, about."""
    return plan.babble_seconds if isinstance(task, BabbleClip) else task.seconds


def _check_space(out: Path, missing: Iterable[Talk]) -> None:
    needed = sum(x.seconds * (2 if is_dialogue(x.id) else 1) for x in missing) * _BYTES_PER_SECOND
    free = shutil.disk_usage(out).free
    if free < 1.1 * needed:
        raise RuntimeError(
            f"{out} needs {needed / 1e9:.1f} GB of free disk space, but has {free / 1e9:.1f} GB"
        )
