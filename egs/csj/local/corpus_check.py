"""Checks a CSJ tree before lhotse reads it: every defect of every talk, named with file and line.

lhotse stops at the first broken file with a bare traceback, or goes on and loses text. Here all
talks are read (SDB strictly, WAV headers and last samples) and all defects are reported in one
run.
"""

import struct
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dualasr_lib.recipe.process import die_with_parent, worker_pool
from dualasr_lib.recipe.stage import PrepareError, progress
from egs.csj.local.sdb import Defect, Span, check_sdb

if TYPE_CHECKING:
    import soundfile

__all__ = ["Talk", "TalkReport", "check_corpus", "hard_coded_talks"]

SAMPLE_RATE = 16000
END_TOLERANCE = 0.5
"""Seconds that a transcript may reach beyond its audio (lhotse shortens such units)."""

_PARTS = ("core", "noncore")


class Talk(NamedTuple):
    """The files of one talk; a dialogue has two WAVs, a talk that is not there has no files."""

    id: str
    part: str
    sdb: Path | None
    wavs: tuple[Path, ...]


class TalkReport(NamedTuple):
    """What was found in one talk."""

    talk: Talk
    defects: tuple[Defect, ...]
    warnings: tuple[Defect, ...]
    spans: tuple[Span, ...] = ()
    """Its units."""
    behind: tuple[Span, ...] = ()
    """Those of them that begin where the audio has ended, or later."""


def hard_coded_talks() -> dict[str, str]:
    """The 75 talk ids that lhotse's recipe wants, and the split of each."""
    from lhotse.recipes import csj as lhotse_csj  # heavy, so after the options

    splits = dict.fromkeys(lhotse_csj._A01M0056, "excluded")
    splits |= dict.fromkeys(lhotse_csj._VALID, "valid")
    for number, talks in enumerate(lhotse_csj._EVAL, start=1):
        splits |= dict.fromkeys(talks, f"eval{number}")
    return splits


def check_corpus(csj_dir: Path, jobs: int) -> list[TalkReport]:
    """Checks every talk, and that the talks which lhotse's splits name are there.

    Raises:
        PrepareError: the folder is not laid out like CSJ.
    """
    talks = list(_find_talks(csj_dir))
    with worker_pool(jobs, die_with_parent) as pool:
        results = pool.map(partial(_check_talk, csj_dir=csj_dir), talks, chunksize=8)
        return list(progress(results, len(talks), "checking talks"))


def _find_talks(csj_dir: Path) -> Iterator[Talk]:
    folder = csj_dir / "MORPH" / "SDB"
    if not any((folder / part).is_dir() for part in _PARTS):
        hint = ""
        for near in (csj_dir.parent, csj_dir.parent.parent, *sorted(csj_dir.glob("*/"))):
            if (near / "MORPH" / "SDB").is_dir():
                hint = f"; did you mean '{near}'?"
        raise PrepareError(
            f"--csj-dir must hold MORPH/SDB/{{core,noncore}} and WAV/{{core,noncore}}, but"
            f" '{csj_dir}' does not{hint}"
        )
    found = set()
    for sdb in sorted(folder.glob("*/*.sdb")):
        found.add(sdb.stem)
        channels = ("-L", "-R") if sdb.stem.startswith("D") else ("",)
        wav_dir = csj_dir / "WAV" / sdb.parent.name
        wavs = tuple(wav_dir / f"{sdb.stem}{channel}.wav" for channel in channels)
        yield Talk(sdb.stem, sdb.parent.name, sdb, wavs)
    for talk in sorted(hard_coded_talks().keys() - found):
        yield Talk(talk, "", None, ())


def _check_talk(talk: Talk, csj_dir: Path) -> TalkReport:
    if talk.sdb is None:
        split = hard_coded_talks()[talk.id]
        reason = f"no such file in core/ or noncore/ (lhotse's recipe needs this talk for {split})"
        file = csj_dir / "MORPH" / "SDB" / "*" / f"{talk.id}.sdb"
        return TalkReport(talk, (Defect(talk.id, str(file), 0, reason),), ())
    text = check_sdb(talk.sdb, talk.id)
    defects = list(text.defects)
    if talk.part not in _PARTS:
        reason = f"the folder must be core or noncore, is '{talk.part}'"
        defects.append(Defect(talk.id, str(talk.sdb), 0, reason))
    for wav in talk.wavs:
        defects += [
            Defect(talk.id, str(wav), 0, why) for why in _audio_problems(wav, text.last_end)
        ]
    warnings, behind = list(text.warnings), []
    for wav in talk.wavs if not defects else ():
        found = _beyond(talk, wav, text.spans)
        defects += found.defects
        warnings += found.warnings
        behind += found.spans
    return TalkReport(talk, tuple(defects), tuple(warnings), text.spans, tuple(behind))


class _Beyond(NamedTuple):
    defects: list[Defect]
    warnings: list[Defect]
    spans: list[Span]


def _beyond(talk: Talk, wav: Path, spans: tuple[Span, ...]) -> _Beyond:
    """Units of one recording that reach beyond its audio: cut short by lhotse, or not there."""
    import soundfile

    end = soundfile.info(wav).duration
    own = [span for span in spans if span.units[0].id.startswith(f"{wav.stem}_")]
    result = _Beyond([], [], [])
    for span in own:
        late = [unit for unit in span.units if unit.start >= end]
        if late and len(late) < len(span.units):
            why = f"a tag ties units across the end of the audio ({end:.3f} s)"
            result.defects.append(Defect(talk.id, str(talk.sdb), late[0].lines[0], why))
        elif late:
            result.spans.append(span)
        for unit in span.units:
            at = f"segment at {unit.start}-{unit.end} s, but the audio ends at {end:.3f} s"
            if unit.end > end:
                what = "left out" if unit in late else "shortened"
                why = f"{at}: {what}"
                result.warnings.append(Defect(talk.id, str(talk.sdb), unit.lines[0], why))
    if not any(span.text for span in own if span not in result.spans):
        result.defects.append(Defect(talk.id, str(wav), 0, "no unit with text within the audio"))
    return result


def _audio_problems(wav: Path, last_end: float) -> Iterator[str]:
    import soundfile

    if not wav.is_file():
        yield "the audio is missing"
        return
    if not wav.stat().st_size:
        yield "the audio file is empty"
        return
    missing = _missing_bytes(wav)
    if missing:
        yield f"truncated: {missing} bytes fewer than the header says"
    try:
        info = soundfile.info(wav)
        yield from _format_problems(info)
        if info.frames and not missing:
            soundfile.read(wav, start=info.frames - 1)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        yield f"unreadable audio: {error}"
        return
    if info.frames and last_end > info.duration + END_TOLERANCE:
        yield f"the transcript ends at {last_end:.3f} s, but the audio at {info.duration:.3f} s"


def _format_problems(info: "soundfile._SoundFileInfo") -> Iterator[str]:
    if not info.frames:
        yield "the audio has no samples"
    if info.samplerate != SAMPLE_RATE:
        yield f"sampling rate must be {SAMPLE_RATE} Hz, is {info.samplerate} Hz"
    if info.channels != 1:
        yield f"must have one channel, has {info.channels}"


def _missing_bytes(path: Path) -> int:
    """Bytes by which a RIFF file is shorter than its data chunk (libsndfile reads such a file)."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        if file.read(4) != b"RIFF":
            return 0
        position = 12
        while position + 8 <= size:
            file.seek(position)
            name, length = struct.unpack("<4sI", file.read(8))
            if name == b"data":
                streamed = length in (0, 0xFFFFFFFF)  # a writer that did not know the length
                return 0 if streamed else max(0, position + 8 + length - size)
            position += 8 + length + length % 2
    return 0


def duplicated(reports: list[TalkReport]) -> list[str]:
    """Talks that stand in core and noncore both."""
    counts = Counter(report.talk.id for report in reports)
    return [talk for talk, count in counts.items() if count > 1]
