"""Manifests of cuts, looked at before lhotse reads them: whatever is wrong is named with its line.

lhotse reads a manifest lazily, in the middle of a run, and stops at a file that was cut short or a
field that is missing with an error that names neither.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dualasr_lib.core.files import AnyPath
from dualasr_lib.core.rates import FRAME_SHIFT_MS
from dualasr_lib.core.text import read_lines

__all__ = ["Entry", "Stored", "check_stored", "frames_of", "read_entries"]

_TIMES = frozenset({"id", "start", "duration"})
_CUT = _TIMES | {"channel", "supervisions", "features", "recording", "custom", "type"}
_SUPERVISION = _TIMES | {"recording_id", "channel", "text", "language", "speaker", "gender"}
_SUPERVISION |= {"custom", "alignment"}
_RECORDING = frozenset({"id", "sources", "sampling_rate", "num_samples", "duration"})
_RECORDING |= {"channel_ids", "transforms"}
_FEATURES = frozenset({"type", "num_frames", "num_features", "frame_shift", "sampling_rate"})
_FEATURES |= {"start", "duration", "storage_type", "storage_path", "storage_key"}
_FEATURES |= {"recording_id", "channels"}
_REMEDY = "prepare.sh writes it: remove the markers from DATA/done/stage-3 on and run it again"


class Entry(NamedTuple):
    """What a line of the manifest says of its utterance."""

    id: str
    text: str
    """Empty for noise, which has none."""
    num_frames: int
    stored: "Stored | None"
    """None: the cut has a recording only."""


class Stored(NamedTuple):
    """Where features are."""

    num_features: int
    """Bins of a frame."""
    storage_path: str
    """Relative to DATA."""


def read_entries(path: AnyPath, with_text: bool = True) -> Iterator[Entry]:
    """Reads and checks a manifest, line by line.

    Args:
        with_text: each cut must have one supervision with a text.

    Raises:
        ValueError: the file is missing, damaged, or no manifest of cuts; the message
            names file, line and remedy.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"'{path}' is missing; prepare.sh writes it")
    number = 0
    seen: set[str] = set()
    try:
        for line in read_lines(path):
            number += 1
            entry = _entry(json.loads(line), with_text)
            if entry.id in seen:
                raise ValueError(f"'{entry.id}' stands there twice")
            seen.add(entry.id)
            yield entry
    except (ValueError, RecursionError) as error:
        why = str(error).removeprefix(f"{path}: ")
        raise ValueError(f"{path}:{max(number, 1)}: {why}; {_REMEDY}") from error


def check_stored(
    data_dir: Path, path: Path, entry: Entry, bins: int | None, found: set[str]
) -> None:
    """The features of an entry of the manifest `path` are there and have so many bins (None: any);
    `found` are files that were seen, and gets its file.

    Raises:
        ValueError: they do not.
    """
    if entry.stored is None:
        raise ValueError(
            f"{path}: '{entry.id}' has no stored features (prepare.sh --features none): "
            "compute them on the way (--set data.features=computed), or run prepare.sh without "
            "that option"
        )
    if bins is not None and entry.stored.num_features != bins:
        raise ValueError(
            f"{path}: the features of '{entry.id}' have {entry.stored.num_features} bins, but"
            f" those of '{data_dir}' have {bins}: the manifest is of another corpus"
        )
    stored = data_dir / entry.stored.storage_path
    if entry.stored.storage_path not in found:
        if not stored.is_file():
            raise ValueError(
                f"'{stored}', the features of '{entry.id}', is missing; prepare.sh stage 4"
                " writes it"
            )
        found.add(entry.stored.storage_path)


def _entry(cut: Any, with_text: bool) -> Entry:
    id_ = _field(cut, "id", str, "a cut")
    what = f"cut '{id_}'"
    if cut.get("type", "MonoCut") != "MonoCut":
        raise ValueError(f"{what} must be a MonoCut, is a {cut['type']!r}")
    if not _number(_field(cut, "start", (int, float), what)) >= 0:
        raise ValueError(f"{what} must start at 0 or later, starts at {cut['start']}")
    if not _number(_field(cut, "duration", (int, float), what)) > 0:
        raise ValueError(f"{what} must be longer than nothing, is {cut['duration']} s")
    _field(cut, "channel", int, what)
    for name, kind in (("id", str), ("sources", list), ("sampling_rate", int),
                       ("num_samples", int), ("duration", (int, float))):  # fmt: skip
        if "recording" in cut:
            _field(cut["recording"], name, kind, f"the recording of {what}")
    _only_known(cut, _CUT, what)
    _only_known(cut.get("recording", {}), _RECORDING, f"the recording of {what}")
    text = _text(cut, what) if with_text else ""
    if "features" not in cut:
        if "recording" not in cut:
            raise ValueError(f"{what} must have the field 'features' or 'recording', but has none")
        return Entry(id_, text, frames_of(cut), None)
    features = _field(cut, "features", dict, what)
    for name, kind in (("type", str), ("start", (int, float)), ("duration", (int, float)),
                       ("frame_shift", (int, float)), ("sampling_rate", int),
                       ("storage_type", str), ("storage_key", str)):  # fmt: skip
        _field(features, name, kind, f"the features of {what}")
    frames, bins = (
        _field(features, name, int, f"the features of {what}")
        for name in ("num_frames", "num_features")
    )
    if frames < 1 or bins < 1:
        raise ValueError(f"the features of {what} must not be empty, are {frames} x {bins}")
    _only_known(features, _FEATURES, f"the features of {what}")
    path = _field(features, "storage_path", str, f"the features of {what}")
    return Entry(id_, text, frames, Stored(bins, path))


def frames_of(cut: Mapping[str, Any]) -> int:
    """Feature frames of a cut as JSON: those that are stored, else those that will be computed from
    its recording (one every `FRAME_SHIFT_MS`, rounded)."""
    if "features" in cut:
        return int(cut["features"]["num_frames"])
    rate = _field(_field(cut, "recording", dict, "a cut"), "sampling_rate", int, "a recording")
    samples, shift = round(cut["duration"] * rate), rate * FRAME_SHIFT_MS // 1000
    return int((samples + shift // 2) // shift) if shift else 0


def _text(cut: Any, what: str) -> str:
    supervisions = _field(cut, "supervisions", list, what)
    if len(supervisions) != 1:
        raise ValueError(f"{what} must have one supervision, has {len(supervisions)}")
    where = f"the supervision of {what}"
    _only_known(supervisions[0], _SUPERVISION, where)
    for name in ("id", "recording_id"):
        _field(supervisions[0], name, str, where)
    for name in ("start", "duration"):
        _number(_field(supervisions[0], name, (int, float), where))
    return str(_field(supervisions[0], "text", str, where))


def _field(item: Any, name: str, kind: Any, what: str) -> Any:
    if not isinstance(item, dict):
        raise ValueError(f"{what} must be a JSON object, is {str(item)[:40]!r}")
    if name not in item:
        raise ValueError(f"{what} must have the field '{name}', but has none")
    value = item[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"'{name}' of {what} has the wrong type: {str(value)[:40]!r}")
    return value


def _only_known(item: Any, known: frozenset[str], what: str) -> None:
    """lhotse's classes take no others."""
    if isinstance(item, dict) and (others := item.keys() - known):
        raise ValueError(f"{what} has the unknown field {min(others)!r}")


def _number(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"times must be finite, one is {value}")
    return value
