"""The lengths of a manifest are kept, found again only for what they were found for, and say the
same as one look at each line."""

import gzip
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("lhotse")
pytest.importorskip("sentencepiece")
sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import torch
from bench.scale import encoder_frames, write_data

from dualasr_lib.core.ctc_frames import ctc_frames
from dualasr_lib.data import lengths
from dualasr_lib.data.data_config import DataConfig
from dualasr_lib.data.datamodule import DataModule, Refused
from dualasr_lib.data.lengths import lengths_file
from dualasr_lib.data.manifest import frames_of
from dualasr_lib.data.tokenizer import Tokenizer

COUNT = 30


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Each pass over a manifest."""
    passes: list[Path] = []
    read = lengths.read_entries

    def counted(path: Path, with_text: bool = True):  # type: ignore[no-untyped-def]
        passes.append(Path(path))
        return read(path, with_text)

    monkeypatch.setattr(lengths, "read_entries", counted)
    monkeypatch.setattr(lengths, "WORTH_KEEPING", COUNT)
    return passes


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_data(tmp_path, COUNT)
    return tmp_path


def _manifest(data: Path) -> Path:
    return data / "cuts" / "train.jsonl.gz"


def _lines(data: Path) -> list[str]:
    with gzip.open(_manifest(data), "rt", encoding="utf-8") as file:
        return file.readlines()


def _refused(data: Path, stretch: int = 1, **options: int) -> tuple[Refused, ...]:
    config = DataConfig(features="computed", num_workers=0, **options)
    module = DataModule(
        config, data, Tokenizer.load(data / "lang"),
        lambda frames: encoder_frames(frames) // stretch, extract=lambda samples: samples,
    )  # fmt: skip
    found = module.refused()
    assert module.size("train") == len(_lines(data))
    return found


def test_a_second_start_does_not_look_again(data: Path, looks: list[Path]) -> None:
    first = _refused(data, stretch=5)
    assert 0 < len(first) < COUNT and len(looks) == 1
    assert _refused(data, stretch=5) == first and len(looks) == 1


def test_a_look_says_what_each_line_says(data: Path, looks: list[Path]) -> None:
    """One at a time: frames, tokens, encoder frames."""
    tokenizer = Tokenizer.load(data / "lang")
    wanted = []
    for cut in map(json.loads, _lines(data)):
        frames, tokens = frames_of(cut), tokenizer.encode(cut["supervisions"][0]["text"])
        encoded, needed = int(encoder_frames(torch.tensor([frames]))) // 7, ctc_frames(tokens)
        if frames < 900:
            wanted.append(Refused(cut["id"], f"{frames} frames, fewer than 900"))
        elif encoded < needed:
            why = f"{len(tokens)} tokens and {needed - len(tokens)} repeats"
            wanted.append(Refused(cut["id"], f"{encoded} encoder frames for {why}"))
    assert len({item.reason.split()[1] for item in wanted}) == 2, "both reasons must be there"
    for _ in range(2):
        assert _refused(data, stretch=7, min_frames=900) == tuple(wanted)
    assert len(looks) == 1


def test_options_and_encoder_need_no_look(data: Path, looks: list[Path]) -> None:
    assert not _refused(data)
    assert len(_refused(data, min_frames=10**6)) == COUNT
    assert _refused(data, stretch=5)
    assert len(looks) == 1


def test_another_manifest_and_other_tokens_are_looked_at(data: Path, looks: list[Path]) -> None:
    assert not _refused(data)
    lines = _lines(data)
    with gzip.open(_manifest(data), "wt", encoding="utf-8") as file:
        file.writelines(lines + [lines[0].replace("utt-0000000", "utt-another")])
    assert not _refused(data) and len(looks) == 2
    Tokenizer.train(["ab"]).save(data / "lang")
    _refused(data)
    assert len(looks) == 3


def test_features_that_are_to_be_read_must_be_in_every_line(data: Path, looks: list[Path]) -> None:
    """The lines of this manifest have none."""
    _refused(data)
    module = DataModule(DataConfig(), data, Tokenizer.load(data / "lang"), encoder_frames)
    with pytest.raises(ValueError, match="has no stored features"):
        module.refused()
    assert len(looks) == 2


@pytest.mark.parametrize("damage", ["cut", "digit", "text", "empty"])
def test_a_damaged_file_is_none(data: Path, looks: list[Path], damage: str) -> None:
    first = _refused(data, stretch=5)
    kept = lengths_file(_manifest(data))
    content = kept.read_bytes()
    half = content.index(b"frames.npy") + 200
    digit = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
    damaged = {"cut": content[:-40], "digit": digit, "text": b"[]", "empty": b""}
    kept.write_bytes(damaged[damage])
    assert _refused(data, stretch=5) == first and len(looks) == 2


def test_a_damaged_manifest_is_still_the_message(data: Path, looks: list[Path]) -> None:
    _refused(data)
    with gzip.open(_manifest(data), "at", encoding="utf-8") as file:
        file.write("{}\n")
    with pytest.raises(ValueError, match=rf"train.jsonl.gz:{COUNT + 1}: a cut must have"):
        _refused(data)
    assert len(looks) == 2


def test_small_manifests_leave_no_file(
    data: Path, looks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lengths, "WORTH_KEEPING", COUNT + 1)
    _refused(data)
    assert not lengths_file(_manifest(data)).exists()
