"""Files of a corpus folder: written atomically, finished talks known, other parameters refused.

OUT/.work/parameters.json     from the first minute on: the plan, refused if another one comes
OUT/.work/talks/<talk>.json   a talk is finished when its record is here (written last)
OUT/.complete                 the plan, when all is there; .work is gone then
"""

from __future__ import annotations

import io
import json
import os
import shutil
import wave
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from open_corpus.degrade import RATE, Samples
from open_corpus.layout import sdb_bytes, sdb_path, wav_path
from open_corpus.plan import BabbleClip, Talk
from open_corpus.talk import RenderedTalk, WordTime

__all__ = ["CorpusFolder"]

_TEMPORARY = ".tmp-"
_HEADER = "channel\tsegment\tword\ttext\tstart\tend\n"


class CorpusFolder:
    """A corpus on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._work = root / ".work"

    def claim(self, parameters: dict[str, Any]) -> bool:
        """Take the folder for a corpus of `parameters`; True if that corpus is there complete.

        Raises ValueError when the folder holds anything else.
        """
        wanted = _json(parameters)
        for known in (self.root / ".complete", self._work / "parameters.json"):
            if known.is_file():
                if known.read_bytes() != wanted:
                    raise ValueError(
                        f"{self.root} must be empty or made with the same parameters, but was made "
                        f"with others: {_difference(json.loads(known.read_bytes()), parameters)}; "
                        f"delete it or choose another folder"
                    )
                if known.name == ".complete":
                    shutil.rmtree(self._work, ignore_errors=True)  # killed just before the end
                    return True
        if not (self._work / "parameters.json").is_file():
            if self.root.is_dir() and any(x.name != ".work" for x in self.root.iterdir()):
                raise ValueError(
                    f"{self.root} must be empty or an open corpus, but holds other files"
                )
            self._write(self._work / "parameters.json", wanted)
        return False

    def has_talk(self, talk: Talk) -> bool:
        """Whether the talk is finished."""
        return self._record_path(talk).is_file()

    def write_talk(self, talk: Talk, rendered: RenderedTalk) -> None:
        """All files of the talk, its record last."""
        for channel, audio in rendered.audio.items():
            self._write(self.root / wav_path(talk.volume, talk.id, channel), _wav_bytes(audio))
        words = _HEADER + "".join(map(_word_line, rendered.words))
        self._write(self.root / "WORDS" / talk.volume / f"{talk.id}.tsv", words.encode())
        self._write(self.root / sdb_path(talk.volume, talk.id), sdb_bytes(talk.id, rendered.rows))
        self._write(self._record_path(talk), _json(rendered.record))

    def record(self, talk: Talk) -> dict[str, Any]:
        """The record of a finished talk."""
        record: dict[str, Any] = json.loads(self._record_path(talk).read_bytes())
        return record

    def has_clip(self, clip: BabbleClip) -> bool:
        """Whether the clip is there."""
        return self._clip_path(clip).is_file()

    def write_clip(self, clip: BabbleClip, samples: Samples) -> None:
        """Keep a clip until the corpus is complete."""
        buffer = io.BytesIO()
        np.save(buffer, samples)
        self._write(self._clip_path(clip), buffer.getvalue())

    def clips(self, clips: Sequence[BabbleClip]) -> dict[str, list[Samples]]:
        """Group -> its clips, in the given order."""
        result: dict[str, list[Samples]] = {}
        for clip in clips:
            result.setdefault(clip.group, []).append(np.load(self._clip_path(clip)))
        return result

    def sentences(self, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The sentences to draw from, selected by `make` once and kept until all is complete."""
        path = self._work / "sentences.json"
        if not path.is_file():
            self._write(path, _json(make()))
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found

    def write_json(self, name: str, content: object) -> None:
        """A file at the top of the corpus."""
        self._write(self.root / name, _json(content))

    def finish(self, parameters: dict[str, Any]) -> None:
        """Mark the corpus complete and remove what only the making needed."""
        for leftover in _leftovers(self.root):
            leftover.unlink()
        self.write_json(".complete", parameters)
        shutil.rmtree(self._work)

    def _record_path(self, talk: Talk) -> Path:
        return self._work / "talks" / f"{talk.id}.json"

    def _clip_path(self, clip: BabbleClip) -> Path:
        return self._work / "babble" / f"{clip.id}.npy"

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{path.name}")
        temporary.write_bytes(data)
        os.replace(temporary, path)


def _leftovers(root: Path) -> Iterator[Path]:
    """Temporary files of a run that was killed."""
    return root.rglob(f"{_TEMPORARY}*")


def _json(content: object) -> bytes:
    return (json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()


def _word_line(word: WordTime) -> str:
    segment = f"{word.segment:04d}"
    times = f"{word.start:.3f}\t{word.end:.3f}"
    return f"{word.channel}\t{segment}\t{word.position}\t{word.text}\t{times}\n"


def _wav_bytes(audio: npt.NDArray[np.int16]) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(audio.tobytes())
    return buffer.getvalue()


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The top-level parameters that differ."""
    new = json.loads(_json(new))
    changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    return ", ".join(
        f"{key} {_short(old.get(key))} (now {_short(new.get(key))})" for key in changed
    )


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."
