"""data.json: written and read back; what is missing, damaged or of another version is refused."""

import dataclasses
import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dualasr_lib.data.folder import DATA_FILE, DataFolder, SplitInfo, TokensInfo, identity

FOLDER = DataFolder(
    corpus="tiny",
    language="en",
    normaliser="english",
    units=("word", "character"),
    features={"num_mel_bins": 80, "dither": 0.0},
    splits=(
        SplitInfo(name="train-100", use="train", cuts="cuts/a.jsonl.gz"),
        SplitInfo(name="dev", use="valid", cuts="cuts/b.jsonl.gz"),
        SplitInfo(name="test-clean", use="eval", cuts="cuts/c.jsonl.gz", pooled=True),
    ),
    tokens=TokensInfo(kind="bpe", vocab_size=500),
)


def test_written_and_read_back(tmp_path: Path) -> None:
    FOLDER.write(tmp_path)
    assert DataFolder.read(tmp_path) == FOLDER
    assert json.loads((tmp_path / DATA_FILE).read_text())["format"] == 1
    assert FOLDER.used_for("valid").name == "dev"
    assert FOLDER.split("test-clean").pooled


def test_an_unknown_split_names_those_that_are_there() -> None:
    with pytest.raises(ValueError, match=r"no split 'eval1'.* it has train-100, dev, test-clean"):
        FOLDER.split("eval1")


def test_an_old_folder_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "stage-4").write_text("{}")
    with pytest.raises(ValueError, match=r"older version\. Run the recipe's prepare.sh"):
        DataFolder.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 9}, "has format 9, but this version reads format 1: prepare"),
        ({"units": []}, "is damaged .*'units' must name"),
        ({"units": ["syllable"]}, r"is damaged .*units\[0\] must be one of"),
        ({"splits": []}, "is damaged .*exactly one for use 'train'"),
        ({"corpse": "csj"}, "is damaged .*unknown config key 'corpse'"),
        ({"features": 3}, "is damaged .*features must be a section"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    FOLDER.write(tmp_path)
    path = tmp_path / DATA_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        DataFolder.read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"3", b'{"format": 1', b"\xff"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / DATA_FILE).write_bytes(content)
    with pytest.raises(ValueError, match=r"is damaged .*remove it and run prepare.sh again"):
        DataFolder.read(tmp_path)


def test_split_names_differ() -> None:
    with pytest.raises(ValueError, match="different names"):
        dataclasses.replace(FOLDER, splits=(*FOLDER.splits, FOLDER.splits[-1]))


def cut(text: str, source: str) -> bytes:
    where = {"type": "file", "source": source}
    return json.dumps({"text": text, "sources": [where], "storage_path": source}).encode() + b"\n"


def test_another_folder_is_told_from_one_that_was_moved(tmp_path: Path) -> None:
    """By all that is not for training; a manifest that is not there says nothing."""
    made = tmp_path / "made"
    FOLDER.write(made)
    (made / "cuts").mkdir()
    for name, text in (("a", "for training"), ("c", "for evaluation")):
        (made / f"cuts/{name}.jsonl.gz").write_bytes(gzip.compress(cut(text, '/x/"1".wav')))
    own = identity(made)
    moved = shutil.copytree(made, tmp_path / "moved")
    (moved / "cuts/c.jsonl.gz").write_bytes(gzip.compress(cut("for evaluation", "/y/1.wav"), 1))
    (moved / "cuts/a.jsonl.gz").write_bytes(gzip.compress(cut("more of it", "/y/1.wav")))
    assert identity(moved) == own
    (moved / "cuts/c.jsonl.gz").write_bytes(gzip.compress(cut("for evaluating", "/x/1.wav")))
    assert identity(moved) != own
    (made / "cuts/c.jsonl.gz").write_bytes(gzip.compress(cut("for evaluation", "x"))[:-5])
    with pytest.raises(ValueError, match=r"c\.jsonl\.gz is damaged .*: run prepare.sh again"):
        identity(made)
