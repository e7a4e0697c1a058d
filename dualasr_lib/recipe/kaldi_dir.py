"""A Kaldi data folder: `wav.scp` (files only), `text`, and, if they are there, `segments` and
`utt2spk`. Commands in wav.scp are refused: they would run again in every stage, and whatever they
say.
"""

from pathlib import Path
from typing import Any

from dualasr_lib.recipe.source import Defect, Source, open_recording, read_table, unit
from dualasr_lib.recipe.stage import PrepareError, progress

__all__ = ["read_kaldi_dir"]


def read_kaldi_dir(folder: Path) -> Source:
    """Recordings and units of the folder; paths in wav.scp are relative to it, or else to where
    the program was started.

    Raises:
        PrepareError: a file is missing, or wav.scp has commands.
    """
    defects: list[Defect] = []
    scp = read_table(folder / "wav.scp", 2, 2, defects)
    _refuse_commands(folder / "wav.scp", scp)
    recordings: dict[str, dict[str, Any]] = {}
    for id_, columns in progress(scp.items(), len(scp), "audio"):
        found = open_recording(_place(folder, columns[1]), id_)
        if isinstance(found, Defect):
            defects.append(found)
        else:
            recordings[id_] = found
    texts = read_table(folder / "text", 1, 2, defects)
    speakers = {}
    if (folder / "utt2spk").is_file():
        speakers = read_table(folder / "utt2spk", 2, 2, defects)
    units = []
    for id_, span in _segments(folder, recordings, scp, defects).items():
        if id_ not in texts:
            defects.append(
                Defect("no-transcript", id_, "a segment without a text", folder / "text")
            )
            continue
        spoken = texts.pop(id_)
        speaker = speakers[id_][1] if id_ in speakers else span[0]
        text = spoken[1] if len(spoken) > 1 else ""
        units.append(unit(id_, span[0], span[1], text, speaker))
    failed = {defect.id for defect in defects}
    for id_ in texts:
        if id_ not in failed:
            defects.append(Defect("text-without-audio", id_, "no audio", folder / "text"))
    return Source(recordings, units, defects)


_Span = tuple[str, tuple[float, float]]


def _segments(
    folder: Path,
    recordings: dict[str, dict[str, Any]],
    scp: dict[str, list[str]],
    defects: list[Defect],
) -> dict[str, _Span]:
    """Recording and times of each segment; those that cannot be become defects."""
    path = folder / "segments"
    if not path.is_file():
        return {id_: (id_, (0.0, float(r["duration"]))) for id_, r in recordings.items()}
    found: dict[str, _Span] = {}
    for id_, (_, recording, *times) in read_table(path, 4, 4, defects).items():
        try:
            start, end = (float(time) for time in times)
        except ValueError:
            defects.append(Defect("bad-line", id_, f"times {' '.join(times)} are no numbers", path))
            continue
        if recording not in recordings:
            why = "is unreadable" if recording in scp else "is not in wav.scp"
            defects.append(Defect("text-without-audio", id_, f"recording {recording} {why}", path))
            continue
        duration = float(recordings[recording]["duration"])
        if not 0 <= start < end <= duration + 0.01:
            detail = f"{start} to {end} s of a recording of {duration:.3f} s"
            defects.append(Defect("outside-audio", id_, detail, path))
            continue
        found[id_] = (recording, (start, min(end, duration)))
    return found


def _refuse_commands(path: Path, scp: dict[str, list[str]]) -> None:
    commands = [id_ for id_, (_, place) in scp.items() if place.endswith("|")]
    archives = [id_ for id_, (_, place) in scp.items() if ".ark:" in place]
    for ids, what in ((commands, "commands"), (archives, "places in archives")):
        if ids:
            raise PrepareError(
                f"{path}: {len(ids)} of {len(scp)} entries are {what} (first: {ids[0]}:"
                f" '{scp[ids[0]][1]}'), which are not run; write their audio to files once, and"
                " name these files"
            )


def _place(folder: Path, name: str) -> Path:
    inner = folder / name
    return inner if inner.is_file() else Path(name).resolve()
