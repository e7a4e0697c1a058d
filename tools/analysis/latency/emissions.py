"""`emissions-<split>.json`: which text each stream showed when, with the words that were said.

Kept beside the results of a split, so that percentiles over several splits can be had without
decoding again. A hypothesis that is read back has no path (tokens, frames).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dualasr_lib.core.files import write_atomically
from dualasr_lib.core.program import what_is_wrong
from dualasr_lib.decoding.hypothesis import Emission, Hypothesis, TokenPath

__all__ = ["emissions_file", "read_emissions", "write_emissions"]


class _Word(NamedTuple):
    text: str
    start: float
    end: float


def emissions_file(directory: Path, split: str) -> Path:
    """The file of `split` in `directory`."""
    return directory / f"emissions-{split}.json"


def write_emissions(path: Path, hypotheses: Sequence[Hypothesis]) -> None:
    """Writes everything that latencies are measured on."""
    text = json.dumps([_plain(item) for item in hypotheses], ensure_ascii=False)
    write_atomically(path, f"{text}\n".encode())


def read_emissions(path: Path) -> list[Hypothesis]:
    """The hypotheses of file `path`.

    Raises:
        ValueError: the file is missing or damaged.
    """
    try:
        return [_hypothesis(entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} must be an emissions file: {what_is_wrong(error)}") from None


def _plain(item: Hypothesis) -> dict[str, Any]:
    return {
        "id": item.id,
        "text": item.text,
        "ref": item.ref,
        "duration": item.duration,
        "words": [(word.text, word.start, word.end) for word in item.words],
        "emissions": [emission._asdict() for emission in item.emissions],
        "step_seconds": item.step_seconds,
    }


def _hypothesis(entry: dict[str, Any]) -> Hypothesis:
    return Hypothesis(
        id=entry["id"],
        text=entry["text"],
        ref=entry["ref"],
        path=TokenPath((), (), 0.0),
        duration=entry["duration"],
        words=tuple(_Word(*word) for word in entry["words"]),
        emissions=tuple(Emission(**emission) for emission in entry["emissions"]),
        step_seconds=tuple(entry["step_seconds"]),
    )
