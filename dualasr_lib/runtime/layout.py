"""The files of a set for the runtime, and what its description holds. Nothing heavy is imported."""

import json
from pathlib import Path
from typing import Any

from dualasr_lib.core.files import AnyPath, file_hash

__all__ = [
    "ATTENTION",
    "DESCRIPTION",
    "FORMAT",
    "FULL",
    "SEARCHES",
    "STREAMING",
    "TOKENIZER",
    "is_runtime_set",
    "read_description",
    "search_name",
    "tables_file",
]

DESCRIPTION = "runtime.json"
STREAMING, FULL, ATTENTION = "streaming.onnx", "full.onnx", "attention.onnx"
TOKENIZER = "sentencepiece.model"
FORMAT = 2
SEARCHES = {"greedy": "ctc", "transducer-greedy": "transducer"}
"""Search of a branch -> the head whose frames it reads."""


def search_name(branch: str, method: str) -> str:
    """Of a search, in the description."""
    return f"{branch}-{method}"


def tables_file(branch: str) -> str:
    """What a transducer's search needs beside its frames."""
    return f"{branch}-transducer.npz"


def is_runtime_set(path: AnyPath) -> bool:
    """Whether there is a folder with a set's description."""
    return (Path(path) / DESCRIPTION).is_file()


def read_description(path: AnyPath) -> dict[str, Any]:
    """What a set says of itself; all of its files are there and undamaged.

    Raises:
        ValueError: it is none, of another version, or a file is missing or damaged.
    """
    folder = Path(path)
    try:
        found = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        version, files = found["format"], found["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} must be what dualasr-export wrote: {error!r}") from None
    if version != FORMAT:
        raise ValueError(
            f"{folder} must be of format {FORMAT}, but is of {version}: export the model again, "
            "or install the version that made it"
        )
    for name, facts in files.items():
        file = folder / name
        if not file.is_file():
            raise ValueError(f"{file} is missing: export the model again")
        if file_hash(file) != facts["sha256"]:
            raise ValueError(f"{file} is damaged, its hash is another: export the model again")
    described: dict[str, Any] = found
    return described
