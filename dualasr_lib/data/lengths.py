"""How long each utterance of a manifest is, in frames and in tokens, kept beside the manifest.

What a training leaves out follows from these numbers at once; reading and tokenising millions of
lines takes minutes. prepare.sh makes the file of the split for training, so the first start finds
it, on every machine; a start that finds none, or one of another manifest or of other tokens, looks
at every line itself. A file that cannot be read is none; one that cannot be written (DATA may be
read-only) is left out.
"""

import contextlib
import hashlib
import io
import zipfile
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dualasr_lib.core.ctc_frames import ctc_frames
from dualasr_lib.core.files import AnyPath, file_hash, write_atomically
from dualasr_lib.data.manifest import Entry, read_entries
from dualasr_lib.data.tokenizer import Tokenizer

__all__ = ["WORTH_KEEPING", "Lengths", "keep_lengths", "lengths_file", "look_through", "recall"]

WORTH_KEEPING = 10_000
"""Utterances; fewer are looked at in a second or two."""
_FORMAT = 2  # another one whenever manifests are checked in another way
_ARRAYS = ("frames", "tokens", "repeats", "ids", "files")


class Lengths(NamedTuple):
    """Of a manifest whose N lines are all in order."""

    frames: npt.NDArray[Any]
    """(N,) int32: feature frames."""
    tokens: npt.NDArray[Any]
    """(N,) int32."""
    repeats: npt.NDArray[Any]
    """(N,) int32: tokens that are the same as the one before; CTC needs a blank between them."""
    ids: npt.NDArray[Any]
    """uint8: the ids as UTF-8, a line each."""
    files: tuple[str, ...]
    """Files of features below DATA that lines name."""
    bins: int
    """Of the stored features of every line; -1 if some have none, or not the same."""

    def ids_of(self, numbers: npt.NDArray[Any]) -> list[str]:
        """Of the utterances with these numbers, from 0."""
        ends = np.flatnonzero(self.ids == ord("\n"))
        starts = np.concatenate(([0], ends[:-1] + 1))
        return [self.ids[starts[n] : ends[n]].tobytes().decode() for n in numbers]


def lengths_file(manifest: AnyPath) -> Path:
    """Where the lengths of a manifest are."""
    manifest = Path(manifest)
    return manifest.with_name(f".{manifest.name}.lengths.npz")


def look_through(
    manifest: AnyPath, tokenizer: Tokenizer, check: Callable[[Entry], object] = lambda _: None
) -> Lengths:
    """One pass over the manifest's JSON lines (building cut objects would take much longer).

    Args:
        check: raises for an entry that cannot be used.

    Raises:
        ValueError: the manifest is missing or damaged; whatever `check` raises.
    """
    found = array("i")  # a list of numbers would need ten times the memory
    ids = io.BytesIO()
    bins: set[int] = set()
    files: set[str] = set()
    for entry in read_entries(manifest):
        check(entry)
        spelt = tokenizer.encode(entry.text)
        found.extend((entry.num_frames, len(spelt), ctc_frames(spelt) - len(spelt)))
        ids.write(entry.id.encode() + b"\n")
        bins.add(-1 if entry.stored is None else entry.stored.num_features)
        if entry.stored is not None:
            files.add(entry.stored.storage_path)
    frames, tokens, repeats = np.array(found, dtype=np.int32).reshape(-1, 3).T
    return Lengths(
        frames=frames,
        tokens=tokens,
        repeats=repeats,
        ids=np.frombuffer(ids.getvalue(), dtype=np.uint8),
        files=tuple(sorted(files)),
        bins=bins.pop() if len(bins) == 1 else -1,
    )


def recall(manifest: AnyPath, tokenizer: Tokenizer) -> Lengths | None:
    """What was kept for this content of the manifest and these tokens, if it was."""
    manifest = Path(manifest)
    file = lengths_file(manifest)
    if not manifest.is_file() or not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as kept:
            if str(kept["key"]) != _key(manifest, tokenizer):
                return None
            arrays = {name: kept[name] for name in _ARRAYS}
            bins = int(kept["bins"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    files = tuple(arrays.pop("files").tobytes().decode().split("\n")[:-1])
    return Lengths(**arrays, files=files, bins=bins)


def keep_lengths(manifest: AnyPath, tokenizer: Tokenizer, lengths: Lengths) -> None:
    """Keeps them, if they took a while to find."""
    size = len(lengths.frames)
    if size < WORTH_KEEPING or np.count_nonzero(lengths.ids == ord("\n")) != size:
        return  # an id with a line break could not be told from two
    content = io.BytesIO()
    files = "".join(f"{name}\n" for name in lengths.files).encode()
    arrays = lengths._asdict() | {"files": np.frombuffer(files, dtype=np.uint8)}
    np.savez(content, key=np.array(_key(manifest, tokenizer)), **arrays)
    with contextlib.suppress(OSError):
        write_atomically(lengths_file(manifest), content.getvalue())


def _key(manifest: AnyPath, tokenizer: Tokenizer) -> str:
    """Of everything that the lengths depend on."""
    parts = (_FORMAT, file_hash(manifest), tokenizer.fingerprint)
    return hashlib.sha256(repr(parts).encode()).hexdigest()
