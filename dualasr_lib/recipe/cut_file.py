"""lhotse cuts that somebody made: each supervision becomes a unit of its cut's recording.

Only simple cuts (lhotse's MonoCut) of audio files can be used: what is mixed, padded or has only
features says nothing of where its audio is.
"""

from pathlib import Path
from typing import Any

from lhotse import CutSet, MonoCut

from dualasr_lib.recipe.corpus import Item
from dualasr_lib.recipe.source import Defect, Source, unit
from dualasr_lib.recipe.stage import PrepareError, progress

__all__ = ["read_cuts"]


def read_cuts(path: Path) -> Source:
    """Recordings and units of a cut manifest; relative paths in it count from the manifest's
    folder, or else from where the program was started.

    Raises:
        PrepareError: it cannot be read.
    """
    recordings: dict[str, dict[str, Any]] = {}
    units: dict[str, Item] = {}
    defects: list[Defect] = []
    try:
        cuts = list(CutSet.from_file(path))
    except Exception as error:  # lhotse's readers raise whatever they meet
        raise PrepareError(f"'{path}' cannot be read as lhotse cuts: {error}") from error
    for cut in progress(cuts, len(cuts), "cuts"):
        if not isinstance(cut, MonoCut) or cut.recording is None:
            detail = f"a {type(cut).__name__} without one recording; only simple cuts can be used"
            defects.append(Defect("unusable-cut", cut.id, detail, path))
            continue
        if (problem := _add(cut, path.parent, recordings)) is not None:
            defects.append(problem)
            continue
        if not cut.supervisions:
            defects.append(Defect("no-transcript", cut.id, "a cut without supervision", path))
        for item in _units(cut):
            if item["id"] in units:
                defects.append(Defect("duplicate-id", item["id"], "in two cuts", path))
            elif (
                item["start"] + item["duration"]
                > recordings[item["recording_id"]]["duration"] + 0.01
            ):
                defects.append(Defect("outside-audio", item["id"], "behind its recording", path))
            else:
                units[item["id"]] = item
    return Source(recordings, list(units.values()), defects)


def _add(cut: MonoCut, folder: Path, recordings: dict[str, dict[str, Any]]) -> Defect | None:
    """Adds the recording with absolute paths; what is wrong with it."""
    plain = cut.recording.to_dict()
    for source in plain["sources"]:
        if source["type"] != "file":
            return Defect("unusable-cut", cut.id, f"audio of type '{source['type']}', not a file")
        inner = folder / source["source"]
        place = inner if inner.is_file() else Path(source["source"]).resolve()
        if not place.is_file():
            return Defect("missing-audio", cut.id, f"'{place}' is not there", place)
        source["source"] = str(place)
    if recordings.setdefault(plain["id"], plain) != plain:
        return Defect("duplicate-id", cut.id, f"two recordings are called {plain['id']}")
    return None


def _units(cut: MonoCut) -> list[Item]:
    found = []
    for supervision in cut.supervisions:
        start = max(0.0, supervision.start)
        end = min(cut.duration, supervision.end)
        id_ = cut.id if len(cut.supervisions) == 1 else supervision.id
        span = (cut.start + start, cut.start + end)
        speaker = supervision.speaker or cut.recording_id
        item = unit(id_, cut.recording_id, span, supervision.text or "", speaker)
        found.append(item | {"channel": cut.channel})
    return found
