"""`DATA/data.json`: what a data folder is. prepare.sh writes it when training could begin.

Training, decoding and the tools read it here; nothing is inferred from file names or from the
markers of stages.
"""

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dualasr_lib.core.config import from_dict, to_dict
from dualasr_lib.core.files import AnyPath, write_atomically
from dualasr_lib.core.program import what_is_wrong

__all__ = [
    "DATA_FILE",
    "DataFolder",
    "SplitInfo",
    "SplitUse",
    "TokensInfo",
    "UnitName",
    "identity",
    "recording_files",
]

DATA_FILE = "data.json"
_FORMAT = 1
_PLACES = re.compile(rb'"(?:source|storage_path)": "(?:[^"\\]|\\.)*"')

UnitName = Literal["character", "word"]
SplitUse = Literal["train", "valid", "eval", "other"]
"""What a split is for; all tuning is done on `valid`."""


@dataclass(frozen=True, kw_only=True)
class SplitInfo:
    """One split."""

    name: str
    use: SplitUse
    cuts: str
    """Its utterances: a file below DATA."""
    pooled: bool = False
    """Whether its results go into the pooled error rate."""


@dataclass(frozen=True, kw_only=True)
class TokensInfo:
    """The tokens in `DATA/lang`."""

    kind: str
    """char, unigram or bpe."""
    vocab_size: int
    """Special tokens included."""


@dataclass(frozen=True, kw_only=True)
class DataFolder:
    """What `data.json` holds."""

    corpus: str
    language: str
    """Code of ISO 639-1."""
    normaliser: str
    """What the texts were normalised by."""
    units: tuple[UnitName, ...]
    """What errors are counted in; the first one is the main one."""
    features: Mapping[str, Any]
    """The configuration of the stored features."""
    splits: tuple[SplitInfo, ...]
    tokens: TokensInfo

    def __post_init__(self) -> None:
        if not self.units:
            raise ValueError("'units' must name what errors are counted in, but is empty")
        names = [split.name for split in self.splits]
        if len(set(names)) < len(names):
            raise ValueError(f"'splits' must have different names, but are {', '.join(names)}")
        for use in ("train", "valid"):
            if sum(split.use == use for split in self.splits) != 1:
                raise ValueError(f"'splits' must have exactly one for use '{use}'")

    def split(self, name: str) -> SplitInfo:
        """The split called `name`.

        Raises:
            ValueError: there is none.
        """
        for split in self.splits:
            if split.name == name:
                return split
        known = ", ".join(split.name for split in self.splits)
        raise ValueError(f"there is no split '{name}' in this data folder; it has {known}")

    def used_for(self, use: Literal["train", "valid"]) -> SplitInfo:
        """The one split that is for training, or for validation."""
        return next(split for split in self.splits if split.use == use)

    @classmethod
    def read(cls, data_dir: AnyPath) -> "DataFolder":
        """What `data_dir` says of itself.

        Raises:
            ValueError: the file is missing, damaged or of another version; the message says what
                to do.
        """
        path = Path(data_dir) / DATA_FILE
        if not path.is_file():
            raise ValueError(
                f"'{path}' is missing: the folder is not prepared up to stage 5, or by an older"
                " version. Run the recipe's prepare.sh with this --data-dir"
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            found = values.pop("format")
        except (UnicodeDecodeError, ValueError, AttributeError, KeyError, TypeError) as error:
            raise _damaged(path, what_is_wrong(error)) from None
        if found != _FORMAT:
            raise ValueError(
                f"'{path}' has format {found}, but this version reads format {_FORMAT}:"
                " prepare the corpus again, into a new --data-dir"
            )
        try:
            return from_dict(cls, values)
        except ValueError as error:
            raise _damaged(path, str(error)) from None

    def write(self, data_dir: AnyPath) -> None:
        """Writes `DATA/data.json`, whole or not at all."""
        text = json.dumps({"format": _FORMAT, **to_dict(self)}, indent=1, ensure_ascii=False)
        write_atomically(Path(data_dir) / DATA_FILE, f"{text}\n".encode())


def recording_files(data_dir: AnyPath, split: str) -> list[Path]:
    """The audio files that the utterances of a split are cut from, each once, in their order.

    Raises:
        ValueError: the folder has no such split, or its manifest is missing.
    """
    path = Path(data_dir) / DataFolder.read(data_dir).split(split).cuts
    if not path.is_file():
        raise ValueError(f"'{path}' is missing; prepare.sh writes it")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        sources = [json.loads(line)["recording"]["sources"][0]["source"] for line in lines]
    return [Path(source) for source in dict.fromkeys(sources)]


def identity(data_dir: AnyPath) -> str:
    """What tells the evaluation data of a folder from those of another one: the first 12
    hexadecimal digits of a sha256 of `data.json` and of the manifests that are not for training.
    Where audio and features lie says nothing, so that a folder may be moved.

    Raises:
        ValueError: as `DataFolder.read`, or a manifest is damaged.
    """
    digest = hashlib.sha256((Path(data_dir) / DATA_FILE).read_bytes())
    for split in DataFolder.read(data_dir).splits:
        path = Path(data_dir) / split.cuts
        if split.use == "train" or not path.is_file():
            continue
        try:
            with gzip.open(path, "rb") as lines:
                for line in lines:
                    digest.update(_PLACES.sub(b"", line))
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(
                f"{path} is damaged ({what_is_wrong(error)}): run prepare.sh again"
            ) from None
    return digest.hexdigest()[:12]


def _damaged(path: Path, why: str) -> ValueError:
    return ValueError(f"'{path}' is damaged ({why}): remove it and run prepare.sh again")
