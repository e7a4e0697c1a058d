"""Stage 3: units -> utterances, as published recipes cut them.

Neighbouring units of one speaker are joined, if the corpus says so, in the order of their ids;
units that are refused are dropped and break a join. Training utterances also come at the corpus's
further speeds (ids end in `_sp0.9`, `_sp1.1`).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lhotse import MonoCut, Recording, SupervisionSegment

from dualasr_lib.core.files import write_atomically
from dualasr_lib.features.fbank import FbankConfig
from dualasr_lib.recipe.corpus import Corpus, Item, Join, O, Split
from dualasr_lib.recipe.stage import Folders, progress, read_jsonl, write_jsonl

__all__ = ["join_units", "parameters", "read_units", "run", "utterances"]


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
    for unit in units:
        if reason := corpus.refuse(options, unit):
            left_out.setdefault(reason, []).append(unit["id"])
    joined = [corpus.supervision(options, u) for u in utterances(corpus, options, units)]
    if empty := [unit["id"] for unit in joined if not unit["text"]]:
        left_out["no text"] = empty
    wanted = [(unit, 1.0) for unit in joined if unit["text"]]
    if split.use == "train":
        wanted += [(unit, speed) for unit, _ in wanted for speed in corpus.speeds]
        wanted.sort(key=_shuffled)
    cuts = (_cut(unit, recordings[unit["recording_id"]], speed) for unit, speed in wanted)
    shown = progress(cuts, len(wanted), split.name)
    write_jsonl(target / corpus.cuts_file(split.name), (cut.to_dict() for cut in shown))
    return left_out


def _shuffled(item: tuple[Item, float]) -> bytes:
    """Sorting key of a fixed random order: lhotse's sampler shuffles within a buffer only."""
    unit, speed = item
    return hashlib.sha256(f"{unit['id']} {speed}".encode()).digest()


def read_units(corpus: Corpus[O], data_dir: Path, parts: tuple[str, ...]) -> list[Item]:
    """The units of some parts as stage 2 wrote them, sorted by id."""
    units: list[Item] = []
    for part in parts:
        units += read_jsonl(data_dir / "text" / corpus.supervisions_file(part))
    return sorted(units, key=lambda unit: str(unit["id"]))


def utterances(corpus: Corpus[O], options: O, units: Iterable[Item]) -> Iterator[Item]:
    """Units (sorted by id) joined as the corpus says, without those that it refuses."""
    group: list[Item] = []
    for unit in units:
        if corpus.refuse(options, unit):
            yield from join_units(group, corpus.join(options))
            group = []
        else:
            group.append(unit)
    yield from join_units(group, corpus.join(options))


def join_units(units: Iterable[Item], join: Join | None) -> Iterator[Item]:
    """Joins neighbouring units, sorted by id, into utterances; None joins nothing.

    A joined utterance is shorter than `join.max_length`; a single unit may be longer.
    """
    if join is None:
        yield from units
        return
    group: list[Item] = []
    for unit in units:
        if group and not _fits(group, unit, join):
            yield _joined(group, join)
            group = []
        group.append(unit)
    if group:
        yield _joined(group, join)


def _end(unit: Item) -> float:
    return float(round(unit["start"] + unit["duration"], 8))


def _fits(group: list[Item], unit: Item, join: Join) -> bool:
    same: bool = unit["speaker"] == group[0]["speaker"]
    length: float = _end(unit) - group[0]["start"]
    pause: float = unit["start"] - _end(group[-1])
    return same and length < join.max_length and pause < join.gap


def _joined(group: list[Item], join: Join) -> Item:
    first = group[0]
    custom = {
        key: join.between.get(key, "").join(unit["custom"][key] for unit in group)
        for key in first.get("custom") or {}
    }
    tiers = {
        name: [item for unit in group for item in unit["alignment"][name]]
        for name in first.get("alignment") or {}
    }
    text = join.between_texts.join(unit["text"] for unit in group if unit["text"])
    duration = round(_end(group[-1]) - first["start"], 8)
    joined = first | {"duration": duration, "text": text}
    return joined | ({"custom": custom} if custom else {}) | ({"alignment": tiers} if tiers else {})


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
