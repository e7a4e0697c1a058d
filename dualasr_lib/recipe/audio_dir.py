"""A folder of audio files and one file of texts: each file is an utterance.

A line of the text file is `NAME TEXT`, or, with tabs, `NAME<tab>TEXT[<tab>SPEAKER]`. NAME is the
path below the folder, with or without its ending, or the file name if no other has it. Without a
speaker column the folder that a file lies in is its speaker, if it is not the top one; else each
file is its own.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from dualasr_lib.recipe.source import Defect, Source, open_recording, read_table, unit
from dualasr_lib.recipe.stage import PrepareError, progress

__all__ = ["ENDINGS", "read_audio_dir"]

ENDINGS = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aiff", ".sph")


def read_audio_dir(folder: Path, text: Path) -> Source:
    """Recordings and units of the folder.

    Raises:
        PrepareError: the folder has no audio.
    """
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in ENDINGS and p.is_file())
    if not files:
        raise PrepareError(f"'{folder}' has no audio ({' '.join(ENDINGS)})")
    source = Source({}, [], [])
    recordings: dict[str, dict[str, Any]] = {}
    names = _names(folder, files)
    used: set[Path] = set()
    lines = read_table(text, 1, 2, source.defects, tabs=True)
    for name, columns in progress(lines.items(), len(lines), "audio"):
        path = names.get(name)
        if path is None:
            detail = f"no audio of this name in '{folder}'"
            source.defects.append(Defect("missing-audio", name, detail, text))
            continue
        id_ = str(path.relative_to(folder).with_suffix("")).replace("/", "-")
        if id_ in recordings or path in used:
            detail = f"'{path.name}' has a text already"
            source.defects.append(Defect("duplicate-id", name, detail, text))
            continue
        used.add(path)
        found = open_recording(path, id_)
        if isinstance(found, Defect):
            source.defects.append(found)
            continue
        recordings[id_] = found
        duration = float(found["duration"])
        spoken = columns[1] if len(columns) > 1 else ""
        speaker = columns[2] if len(columns) > 2 else _speaker(folder, path, id_)
        source.units.append(unit(id_, id_, (0.0, duration), spoken, speaker))
    for path in files:
        if path not in used:
            name = str(path.relative_to(folder))
            source.defects.append(Defect("no-transcript", name, "audio without a text", path))
    return Source(recordings, source.units, source.defects)


def _names(folder: Path, files: list[Path]) -> dict[str, Path]:
    """What a line may call each file."""
    names: dict[str, Path] = {}
    for path in files:
        inner = path.relative_to(folder)
        names[str(inner)] = path
        names.setdefault(str(inner.with_suffix("")), path)
    for bare in ([path.name for path in files], [path.stem for path in files]):
        count = Counter(bare)
        for name, path in zip(bare, files):
            if count[name] == 1:
                names.setdefault(name, path)
    return names


def _speaker(folder: Path, path: Path, id_: str) -> str:
    return id_ if path.parent == folder else str(path.parent.relative_to(folder))
