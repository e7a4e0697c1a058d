"""Stage 3: units -> utterances, as published CSJ recipes cut them.

Neighbouring units of one speaker are joined (pause below 1.0 s, together below 10 s unless
--max-length says otherwise), in the order of their ids; units with a masked name (×) are dropped
and break a join. Training utterances come three times: as they are, and at speeds 0.9 and 1.1 (ids
end in `_sp0.9`, `_sp1.1`).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lhotse import MonoCut, Recording, SupervisionSegment

from dualasr_lib.core.files import write_atomically
from dualasr_lib.recipe.options import SPLITS, Options
from dualasr_lib.recipe.stage import Folders, progress, read_jsonl, write_jsonl

__all__ = ["GAP", "SPEEDS", "join_units", "run"]

GAP = 1.0  # seconds; as icefall's compute_fbank_csj.py
SPEEDS = (0.9, 1.1)
_MASKED = "×"


def run(options: Options, folders: Folders) -> None:
    """Writes `utterances/csj_cuts_<split>.jsonl.gz` (no features yet) and
    `utterances/left_out.json`.
    """
    left_out: dict[str, dict[str, list[str]]] = {}
    for split in SPLITS:
        parts = ("core", "noncore") if split == "train" else (split,)
        recordings, units = _read(options.data_dir, parts)
        joined = list(join_units(units, options.max_length))
        refused = {
            "units with a masked name (×)": [u["id"] for u in units if _is_masked(u)],
            f"no text in mode {options.mode}": [u["id"] for u in joined if not _text(u, options)],
        }
        left_out[split] = {reason: ids for reason, ids in refused.items() if ids}
        wanted = [(u, 1.0) for u in joined if _text(u, options)]
        if split == "train":
            wanted += [(unit, speed) for unit, _ in wanted for speed in SPEEDS]
            wanted.sort(key=_shuffled)
        cuts = (_cut(u, recordings[u["recording_id"]], options.mode, speed) for u, speed in wanted)
        name = f"csj_cuts_{split}.jsonl.gz"
        shown = progress(cuts, len(wanted), split)
        write_jsonl(folders.out / "utterances" / name, (cut.to_dict() for cut in shown))
    text = json.dumps(left_out, indent=1, ensure_ascii=False)
    write_atomically(folders.out / "utterances" / "left_out.json", text.encode())


def _text(unit: dict[str, Any], options: Options) -> str:
    return str(unit["custom"][options.mode])


def _shuffled(item: tuple[dict[str, Any], float]) -> bytes:
    """Sorting key of a fixed random order: lhotse's sampler shuffles within a buffer only."""
    unit, speed = item
    return hashlib.sha256(f"{unit['id']} {speed}".encode()).digest()


def join_units(
    units: Iterable[dict[str, Any]], max_length: float = 10.0
) -> Iterator[dict[str, Any]]:
    """Joins neighbouring units (lhotse's plain supervisions, sorted by id) into utterances.

    A joined utterance is shorter than `max_length` seconds; a single unit may be longer.
    """
    group: list[dict[str, Any]] = []
    for unit in units:
        if group and (_is_masked(unit) or not _fits(group, unit, max_length)):
            yield _joined(group)
            group = []
        if not _is_masked(unit):
            group.append(unit)
    if group:
        yield _joined(group)


def _is_masked(unit: dict[str, Any]) -> bool:
    return _MASKED in unit["custom"]["raw"]


def _end(unit: dict[str, Any]) -> float:
    return float(round(unit["start"] + unit["duration"], 8))


def _fits(group: list[dict[str, Any]], unit: dict[str, Any], max_length: float) -> bool:
    same: bool = unit["speaker"] == group[0]["speaker"]
    length: float = _end(unit) - group[0]["start"]
    pause: float = unit["start"] - _end(group[-1])
    return same and length < max_length and pause < GAP


def _joined(group: list[dict[str, Any]]) -> dict[str, Any]:
    first = group[0]
    custom = {
        key: {"raw": " ", "disfluent_tag": ","}.get(key, "").join(u["custom"][key] for u in group)
        for key in first["custom"]
    }
    tiers = {
        name: [item for unit in group for item in unit["alignment"][name]]
        for name in first.get("alignment") or {}
    }
    duration = round(_end(group[-1]) - first["start"], 8)
    return (
        first | {"duration": duration, "custom": custom} | ({"alignment": tiers} if tiers else {})
    )


def _read(
    data_dir: Path, parts: tuple[str, ...]
) -> tuple[dict[str, Recording], list[dict[str, Any]]]:
    """Recordings by id, and units sorted by id, of some parts."""
    recordings: dict[str, Recording] = {}
    units: list[dict[str, Any]] = []
    for part in parts:
        path = data_dir / "manifests" / f"csj_recordings_{part}.jsonl.gz"
        recordings |= {item["id"]: Recording.from_dict(item) for item in read_jsonl(path)}
        units += read_jsonl(data_dir / "text" / f"csj_supervisions_{part}.jsonl.gz")
    return recordings, sorted(units, key=lambda unit: str(unit["id"]))


def _cut(unit: dict[str, Any], recording: Recording, mode: str, speed: float) -> MonoCut:
    """The utterance as a lhotse cut; its text and its tier `word` are those of the mode."""
    custom = {key: value for key, value in unit["custom"].items() if key != "raw"}
    plain = unit | {"text": unit["custom"][mode], "custom": custom}
    if "alignment" in unit:
        words = unit["alignment"]["word" if mode == "disfluent" else f"word_{mode}"]
        shifted = [[text, round(at - unit["start"], 6), *rest] for text, at, *rest in words]
        plain["alignment"] = {"word": shifted}  # times from the utterance's start
    supervision = SupervisionSegment.from_dict(plain)
    cut = MonoCut(
        id=unit["id"],
        start=unit["start"],
        duration=unit["duration"],
        channel=0,
        supervisions=[supervision.with_offset(-unit["start"])],
        recording=recording,
    )
    return cut if speed == 1.0 else cut.perturb_speed(speed)
