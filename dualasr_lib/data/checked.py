"""What a look at every line of a manifest found, kept beside it: reading and tokenising millions of
utterances takes minutes, and a run that starts again would do it again.

An answer counts for one content of the manifest and one set of options (the key), and only while
what it rests on still holds, which whoever asks makes sure of. A file that cannot be read is no
answer; one that cannot be written (DATA may be read-only) is left out.
"""

import contextlib
import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from dualasr_lib.core.files import AnyPath, file_hash, write_atomically

__all__ = ["WORTH_KEEPING", "Checked", "checked_file", "key_of", "recall", "remember"]

WORTH_KEEPING = 10_000
"""Utterances; fewer are looked at in a second or two."""
_FORMAT = 1  # another one whenever manifests are checked, or utterances refused, in another way


class Checked(NamedTuple):
    """Of a manifest whose lines are all in order."""

    size: int
    """Utterances."""
    refused: tuple[tuple[str, str], ...]
    """Id and reason of those that are left out."""
    lens: dict[int, int]
    """Feature frames -> encoder frames, as far as they were asked for."""
    files: tuple[str, ...]
    """Files of features below DATA that were there."""


def checked_file(manifest: AnyPath) -> Path:
    """Where the answer for a manifest is."""
    manifest = Path(manifest)
    return manifest.with_name(f".{manifest.name}.checked.json")


def key_of(manifest: AnyPath, *options: object) -> str:
    """Of a manifest's content and everything else that the answer depends on; '' without one."""
    if not Path(manifest).is_file():
        return ""
    return hashlib.sha256(repr((_FORMAT, file_hash(manifest), *options)).encode()).hexdigest()


def recall(manifest: AnyPath, key: str) -> Checked | None:
    """The answer that was kept for this key, if there is one."""
    try:
        found = json.loads(checked_file(manifest).read_text(encoding="utf-8"))
        text = json.dumps(found["checked"], ensure_ascii=False)
        if found["key"] != key or found["sum"] != _sum(text):
            return None
        size, refused, lens, files = found["checked"]
        pairs = tuple((str(id_), str(reason)) for id_, reason in refused)
        return Checked(int(size), pairs, {int(x): int(y) for x, y in lens}, tuple(files))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def remember(manifest: AnyPath, key: str, checked: Checked) -> None:
    """Keeps an answer, if it took a while to find."""
    if checked.size < WORTH_KEEPING:
        return
    lists = [checked.size, checked.refused, sorted(checked.lens.items()), checked.files]
    text = json.dumps(lists, ensure_ascii=False)
    kept = f'{{"key": "{key}", "sum": "{_sum(text)}", "checked": {text}}}\n'
    with contextlib.suppress(OSError):
        write_atomically(checked_file(manifest), kept.encode())


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
