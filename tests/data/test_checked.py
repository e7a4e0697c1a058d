"""What a look at a manifest found is kept, and found again only for what it was found for."""

import gzip
import sys
from pathlib import Path

import pytest

pytest.importorskip("lhotse")
pytest.importorskip("sentencepiece")
sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from bench.scale import encoder_frames, write_data

from dualasr_lib.data import checked, datamodule
from dualasr_lib.data.checked import checked_file
from dualasr_lib.data.data_config import DataConfig
from dualasr_lib.data.datamodule import DataModule, Refused
from dualasr_lib.data.tokenizer import Tokenizer

COUNT = 30


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Each pass over a manifest."""
    passes: list[Path] = []
    read = datamodule.read_entries

    def counted(path: Path, with_text: bool = True):  # type: ignore[no-untyped-def]
        passes.append(Path(path))
        return read(path, with_text)

    monkeypatch.setattr(datamodule, "read_entries", counted)
    monkeypatch.setattr(checked, "WORTH_KEEPING", COUNT)
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


def test_what_changed_is_looked_at_again(data: Path, looks: list[Path]) -> None:
    """The manifest, an option, or the model's encoder."""
    assert not _refused(data)
    lines = _lines(data)
    assert len(_refused(data, min_frames=10**6)) == COUNT
    assert _refused(data, stretch=5)
    assert len(looks) == 3
    assert not _refused(data)
    with gzip.open(_manifest(data), "wt", encoding="utf-8") as file:
        file.writelines(lines + [lines[0].replace("utt-0000000", "utt-another")])
    assert not _refused(data) and len(looks) == 5


@pytest.mark.parametrize("damage", ["cut", "digit", "list"])
def test_a_damaged_answer_is_none(data: Path, looks: list[Path], damage: str) -> None:
    first = _refused(data, stretch=5)
    kept = checked_file(_manifest(data))
    text = kept.read_text(encoding="utf-8")
    count = f'"checked": [{COUNT}'
    assert count in text
    damaged = {"cut": text[:-40], "digit": text.replace(count, f'"checked": [{COUNT - 1}'),
               "list": "[]"}  # fmt: skip
    kept.write_text(damaged[damage], encoding="utf-8")
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
    monkeypatch.setattr(checked, "WORTH_KEEPING", COUNT + 1)
    _refused(data)
    assert not checked_file(_manifest(data)).exists()
