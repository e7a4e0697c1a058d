"""Splits of a corpus that comes without: whole speakers (or recordings) go to one of them.

The choice depends on names only, so that it is the same wherever and however often it is made, and
a speaker stays where it was when others are added.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from dualasr_lib.recipe.corpus import Item
from dualasr_lib.recipe.source import Defect, read_table
from dualasr_lib.recipe.stage import PrepareError

__all__ = ["SplitBy", "given_splits", "read_splits", "split_units"]

SplitBy = Literal["speaker", "recording", "utterance"]
_KEYS: dict[SplitBy, str] = {"speaker": "speaker", "recording": "recording_id", "utterance": "id"}
_LARGEST = 1.5
"""A group that makes a split longer than this many times what is wanted is passed over."""


def split_units(
    units: Sequence[Item], by: SplitBy, shares: Mapping[str, float]
) -> dict[str, list[Item]]:
    """Units of each split: those of `shares` (parts of all hours), the rest in `train`.

    Raises:
        PrepareError: there are not enough speakers (or whatever is kept together).
    """
    seconds: dict[str, float] = {}
    for item in units:
        group = item[_KEYS[by]]
        seconds[group] = seconds.get(group, 0.0) + item["duration"]
    if len(seconds) <= len(shares):
        raise PrepareError(
            f"{len(seconds)} {by}s do not make {len(shares) + 1} splits; use --split-by recording"
            " or utterance, or say where each goes with --split-file"
        )
    place: dict[str, str] = {}
    left = dict(sorted(seconds.items(), key=lambda item: hashlib.sha256(item[0].encode()).digest()))
    for split, share in shares.items():
        for group in _pick(left, share * sum(seconds.values()), keep=len(shares) - len(place)):
            place[group] = split
            del left[group]
    found: dict[str, list[Item]] = {split: [] for split in ("train", *shares)}
    for item in units:
        found[place.get(item[_KEYS[by]], "train")].append(item)
    return found


def _pick(groups: Mapping[str, float], wanted: float, keep: int) -> list[str]:
    """Groups of together about `wanted` seconds, at least one; `keep` are left for others."""
    chosen: list[str] = []
    total = 0.0
    for group, length in groups.items():
        if total >= wanted or len(groups) - len(chosen) <= max(keep, 1):
            break
        if total + length <= _LARGEST * wanted:
            chosen.append(group)
            total += length
    return chosen or [min(groups, key=lambda group: groups[group])]


def read_splits(path: Path) -> dict[str, str]:
    """Lines `NAME SPLIT` of a file; a name is that of a unit, a recording or a speaker.

    Raises:
        PrepareError: a line is damaged, or the splits `train` and `valid` are not there.
    """
    defects: list[Defect] = []
    table = read_table(path, 2, 2, defects)
    if defects:
        raise PrepareError(f"{path}: {defects[0].kind}: {defects[0].id}: {defects[0].detail}")
    splits = {name: columns[1] for name, columns in table.items()}
    if missing := {"train", "valid"} - set(splits.values()):
        raise PrepareError(f"'{path}' must put something into {' and '.join(sorted(missing))}")
    return splits


def given_splits(units: Sequence[Item], splits: Mapping[str, str]) -> dict[str, list[Item]]:
    """Units of each split of `read_splits`.

    Raises:
        PrepareError: a unit has none.
    """
    found: dict[str, list[Item]] = {split: [] for split in dict.fromkeys(splits.values())}
    homeless = []
    for item in units:
        names = (item["id"], item["recording_id"], item["speaker"])
        split = next((splits[name] for name in names if name in splits), None)
        if split is None:
            homeless.append(item["id"])
        else:
            found[split].append(item)
    if homeless:
        raise PrepareError(f"{len(homeless)} units are in no split (first: {homeless[0]})")
    return found
