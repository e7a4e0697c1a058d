"""What a finished corpus says about itself: its size, its sources and licences, its conditions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from open_corpus.plan import Plan
from open_corpus.prompts import group_of
from open_corpus.sources import LICENCES

__all__ = ["Summary", "check_groups", "conditions", "sources", "summarise"]


class Summary(NamedTuple):
    """What a corpus holds."""

    talks: int
    speakers: int
    """Babble included."""
    hours: float
    """Of audio; a dialogue counts both channels."""
    speech_hours: float
    characters: int
    distinct_characters: int
    sentences: int
    refused: int
    """Sentences that could not be read as intended or written, and were replaced."""


def summarise(records: Sequence[dict[str, Any]], out: Path, num_speakers: int) -> Summary:
    """The size of the corpus in `out` whose talks have these records."""
    characters = _characters(out)
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


def check_groups(records: Sequence[dict[str, Any]]) -> None:
    """Prove that no sentence is in two of train, valid and the eval sets; else RuntimeError."""
    owner: dict[str, str] = {}
    for record in records:
        group = group_of(record["split"])
        for source in record["sources"]:
            if owner.setdefault(source, group) != group:
                raise RuntimeError(
                    f"{source!r} must be in one group, but is in {owner[source]} and {group}"
                )


def conditions(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """conditions.json: split, damage, speakers and size of each talk."""
    left_out = ("id", "sources", "refused")
    return {x["id"]: {k: v for k, v in x.items() if k not in left_out} for x in records}


def sources(plan: Plan, records: Sequence[dict[str, Any]], summary: Summary) -> dict[str, Any]:
    """SOURCES.json: licences, attribution, and the sentences (Tatoeba ids) of each talk."""
    unused = {"Tatoeba" if plan.text == "demo" else "demo grammar"}
    if not plan.neural:
        unused.add("Kokoro-82M")
    return {
        "about": "Synthetic speech; not CSJ. Figures measured on it are never CSJ figures.",
        "summary": summary._asdict(),
        "sources": {name: entry for name, entry in LICENCES.items() if name not in unused},
        "sentences": {x["id"]: x["sources"] for x in records},
        "refused": {x["id"]: x["refused"] for x in records if x["refused"]},
    }


def _characters(out: Path) -> Counter[str]:
    """Counts of all characters, read back from the word files."""
    counts: Counter[str] = Counter()
    for path in sorted(out.glob("WORDS/*/*.tsv")):
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            counts.update(line.split("\t")[3])
    return counts
