"""Stage 3: units -> utterances, as published recipes cut them.

Neighbouring units of one speaker are joined, if the corpus says so, in the order of their times;
units that are refused are dropped and break a join. Training utterances also come at the corpus's
further speeds (ids end in `_sp0.9`, `_sp1.1`). What is shorter than the shortest audio that has
features is left out.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lhotse import MonoCut, Recording, SupervisionSegment

from dualasr_lib.core.files import write_atomically
from dualasr_lib.features.fbank import FbankConfig
from dualasr_lib.recipe.balance import check_balance
from dualasr_lib.recipe.corpus import Corpus, Item, Join, O, Split
from dualasr_lib.recipe.stage import Folders, progress, read_jsonl, write_jsonl

__all__ = ["group_units", "groups", "joined", "parameters", "read_units", "run", "utterances"]

_SHORTEST = FbankConfig().min_samples / FbankConfig().sample_rate
"""Seconds; shorter audio has no features, and nobody can have said anything in it."""
_TOO_SHORT = f"shorter than {1000 * _SHORTEST} ms"


def parameters(corpus: Corpus[O], options: O) -> dict[str, Any]:
    """What decides the bytes of this stage beside the units."""
    join = corpus.join(options)
    return {
        "normaliser": corpus.normaliser(options),
        "join": None if join is None else [join.max_length, join.gap],
        "speeds": list(corpus.speeds),
        "splits": {split.name: list(split.parts) for split in corpus.splits(options)},
    }


def run(corpus: Corpus[O], options: O, folders: Folders) -> None:
    """Writes `utterances/<corpus>_cuts_<split>.jsonl.gz` (no features yet) and
    `utterances/left_out.json`.
    """
    left_out = {}
    for split in corpus.splits(options):
        left_out[split.name] = _split(corpus, options, split, folders.out / "utterances")
    text = json.dumps(left_out, indent=1, ensure_ascii=False)
    write_atomically(folders.out / "utterances" / "left_out.json", text.encode())


def _split(corpus: Corpus[O], options: O, split: Split, target: Path) -> dict[str, list[str]]:
    """Writes the utterances of one split; the ids of what is left out, by reason."""
    recordings = {
        item["id"]: Recording.from_dict(item)
        for part in split.parts
        for item in read_jsonl(options.data_dir / "manifests" / corpus.recordings_file(part))
    }
    units = read_units(corpus, options.data_dir, split.parts)
    left_out: dict[str, list[str]] = {}
    kept: list[str] = []
    for unit in units:
        if reason := corpus.refuse(options, unit):
            left_out.setdefault(reason, []).append(unit["id"])
    wanted: list[tuple[Item, float]] = []
    for group in groups(corpus, options, units):
        unit = corpus.supervision(options, joined(group, corpus.join(options)))
        ids = [member["id"] for member in group]
        if not unit["text"]:
            left_out.setdefault("no text", []).extend(ids)
        elif unit["duration"] < _SHORTEST:
            left_out.setdefault(_TOO_SHORT, []).extend(ids)
        else:
            wanted.append((unit, 1.0))
            kept += ids
    check_balance(f"stage 3, {split.name}", (unit["id"] for unit in units), kept, left_out)
    if split.use == "train":
        for unit, speed in [(unit, speed) for unit, _ in wanted for speed in corpus.speeds]:
            if unit["duration"] / speed < _SHORTEST:
                left_out.setdefault(_TOO_SHORT, []).append(f"{unit['id']}_sp{speed}")
            else:
                wanted.append((unit, speed))
        wanted.sort(key=_shuffled)
    cuts = (_cut(unit, recordings[unit["recording_id"]], speed) for unit, speed in wanted)
    shown = progress(cuts, len(wanted), split.name)
    write_jsonl(target / corpus.cuts_file(split.name), (cut.to_dict() for cut in shown))
    for reason, ids in left_out.items():
        print(f"  {split.name}: {len(ids)} left out: {reason} ({', '.join(ids[:3])}"
              f"{', ...' if len(ids) > 3 else ''})")  # fmt: skip
    return left_out


def _shuffled(item: tuple[Item, float]) -> bytes:
    """Sorting key of a fixed random order: lhotse's sampler shuffles within a buffer only."""
    unit, speed = item
    return hashlib.sha256(f"{unit['id']} {speed}".encode()).digest()


def read_units(corpus: Corpus[O], data_dir: Path, parts: tuple[str, ...]) -> list[Item]:
    """The units of some parts as stage 2 wrote them, speaker by speaker, by their starts."""
    units: list[Item] = []
    for part in parts:
        units += read_jsonl(data_dir / "text" / corpus.supervisions_file(part))
    return sorted(units, key=_place)


def _place(unit: Item) -> tuple[str, str, str, float, str]:
    """Sorting key: the units of one speaker in one channel stand together, in the order of time."""
    channel = str(unit.get("channel", 0))
    return unit["recording_id"], channel, unit["speaker"], unit["start"], str(unit["id"])


def utterances(corpus: Corpus[O], options: O, units: Iterable[Item]) -> Iterator[Item]:
    """Units (as `read_units` sorts them) joined as the corpus says, without those it refuses and
    what is too short.
    """
    for group in groups(corpus, options, units):
        utterance = joined(group, corpus.join(options))
        if utterance["duration"] >= _SHORTEST:
            yield utterance


def groups(corpus: Corpus[O], options: O, units: Iterable[Item]) -> Iterator[list[Item]]:
    """The units of each utterance."""
    group: list[Item] = []
    for unit in units:
        if corpus.refuse(options, unit):
            yield from group_units(group, corpus.join(options))
            group = []
        else:
            group.append(unit)
    yield from group_units(group, corpus.join(options))


def group_units(units: Iterable[Item], join: Join | None) -> Iterator[list[Item]]:
    """Neighbouring units, sorted by their starts, that are joined; None joins nothing.

    Together they are shorter than `join.max_length`; a single unit may be longer.
    """
    group: list[Item] = []
    for unit in units:
        if group and not (join is not None and _fits(group, unit, join)):
            yield group
            group = []
        group.append(unit)
    if group:
        yield group


def _end(units: Iterable[Item]) -> float:
    """Where the last of them ends, which need not be the one that begins last."""
    return max(float(round(unit["start"] + unit["duration"], 8)) for unit in units)


def _fits(group: list[Item], unit: Item, join: Join) -> bool:
    same: bool = unit["speaker"] == group[0]["speaker"]
    length: float = _end([*group, unit]) - group[0]["start"]
    pause: float = unit["start"] - _end(group)
    return same and length < join.max_length and pause < join.gap


def joined(group: list[Item], join: Join | None) -> Item:
    """One utterance of some units; it begins with the first and ends when all have ended."""
    first = group[0]
    if join is None:
        return first
    custom = {
        key: join.between.get(key, "").join(unit["custom"][key] for unit in group)
        for key in first.get("custom") or {}
    }
    tiers = {
        name: [item for unit in group for item in unit["alignment"][name]]
        for name in first.get("alignment") or {}
    }
    text = join.between_texts.join(unit["text"] for unit in group if unit["text"])
    duration = round(_end(group) - first["start"], 8)
    whole = first | {"duration": duration, "text": text}
    return whole | ({"custom": custom} if custom else {}) | ({"alignment": tiers} if tiers else {})


def _cut(unit: Item, recording: Recording, speed: float) -> MonoCut:
    """The utterance as a lhotse cut; times of words count from its start."""
    tiers = {
        name: [[text, round(at - unit["start"], 6), *rest] for text, at, *rest in tier]
        for name, tier in (unit.get("alignment") or {}).items()
    }
    plain = unit | ({"alignment": tiers} if tiers else {})
    cut = MonoCut(
        id=unit["id"],
        start=unit["start"],
        duration=unit["duration"],
        channel=unit.get("channel", 0),
        supervisions=[SupervisionSegment.from_dict(plain).with_offset(-unit["start"])],
        recording=recording,
    )
    rate = FbankConfig().sample_rate
    if recording.sampling_rate != rate:
        cut = cut.resample(rate)
    return cut if speed == 1.0 else cut.perturb_speed(speed)
