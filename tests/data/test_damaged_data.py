"""Damaged manifests, features and odd splits: each is one line with file, place and remedy."""

import gzip
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lhotse")
pytest.importorskip("lilcom")
pytest.importorskip("sentencepiece")

from lhotse import LilcomChunkyWriter, NumpyFilesWriter
from test_datamodule import QUIET, _cut, _write

from dualasr_lib.data.datamodule import DataConfig, DataModule
from dualasr_lib.data.folder import DataFolder, SplitInfo, TokensInfo
from dualasr_lib.data.manifest import read_entries
from dualasr_lib.data.tokenizer import Tokenizer

Cut = dict[str, Any]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Three utterances for training, two for validation, none in eval."""
    (tmp_path / "features").mkdir()
    with LilcomChunkyWriter(tmp_path / "features" / "all.lca") as writer:
        cuts = [_cut(writer, f"u{i}", 60 + 20 * i, "あい") for i in range(5)]
    for split, items in (("train", cuts[:3]), ("valid", cuts[3:]), ("eval", [])):
        _write(tmp_path / "cuts" / f"{split}.jsonl.gz", items)
    uses = {"train": "train", "valid": "valid", "eval": "eval"}
    DataFolder(
        corpus="x",
        language="ja",
        normaliser="none",
        units=("character",),
        features={"num_mel_bins": 80},
        splits=tuple(
            SplitInfo(name=name, use=use, cuts=f"cuts/{name}.jsonl.gz", pooled=False)  # type: ignore[arg-type]
            for name, use in uses.items()
        ),
        tokens=TokensInfo(kind="char", vocab_size=5),
    ).write(tmp_path)
    return tmp_path


def _module(data_dir: Path, **config: Any) -> DataModule:
    options = {"num_workers": 0, "augment": QUIET, "min_frames": 9} | config
    return DataModule(DataConfig(**options), data_dir, Tokenizer.train(["あい"]))


def _train_ids(module: DataModule) -> list[str]:
    return sorted(id_ for batch in module.train_batches(0, 0, 1) for id_ in batch.ids)


def _edit(data_dir: Path, change: Callable[[Cut], object], split: str = "valid") -> Path:
    """Changes the second line of a manifest."""
    path = data_dir / "cuts" / f"{split}.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        cuts = [json.loads(line) for line in lines]
    change(cuts[1])
    _write(path, cuts)
    return path


def test_a_manifest_that_was_cut_short(data_dir: Path) -> None:
    for split in ("train", "valid"):
        path = data_dir / "cuts" / f"{split}.jsonl.gz"
        path.write_bytes(path.read_bytes()[:-30])
    wanted = r"jsonl.gz:\d+: gzip file cut short or damaged: .*; prepare.sh writes it"
    with pytest.raises(ValueError, match=wanted):
        list(_module(data_dir).valid_batches())
    with pytest.raises(ValueError, match=wanted):
        _train_ids(_module(data_dir))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cut: cut.pop("features"), "valid.jsonl.gz:2: cut 'u4' must have the field 'featu"),
        (lambda cut: cut.pop("id"), "valid.jsonl.gz:2: a cut must have the field 'id'"),
        (lambda cut: cut.pop("supervisions"), "must have the field 'supervisions'"),
        (lambda cut: cut.update(supervisions=[]), "must have one supervision, has 0"),
        (lambda cut: cut["supervisions"][0].pop("text"), "must have the field 'text'"),
        (lambda cut: cut["supervisions"][0].update(text=None), "'text' .* has the wrong type"),
        (lambda cut: cut.update(duration="1"), "'duration' of cut 'u4' has the wrong type: '1'"),
        (lambda cut: cut.update(duration=-1.0), "must be longer than nothing, is -1.0 s"),
        (lambda cut: cut.update(start=math.nan), "times must be finite"),
        (lambda cut: cut.update(type="MixedCut"), "must be a MonoCut, is a 'MixedCut'"),
        (lambda cut: cut.update(id="u3"), "'u3' stands there twice"),
        (lambda cut: cut.update(recording={"id": "r"}), "the recording of cut 'u4' must have"),
        (lambda cut: cut["features"].update(num_frames=0), "must not be empty, are 0 x 80"),
        (lambda cut: cut["features"].update(num_features=40), "have 40 bins, .* another corpus"),
        (
            lambda cut: cut["features"].update(storage_path="features/x.lca"),
            "features/x.lca', the features of 'u4', is missing; prepare.sh stage 4",
        ),
        (
            lambda cut: cut["features"].update(storage_key="9999999"),
            r"the features of 'u4' in .*all.lca' must be \(T, 80\)",
        ),
    ],
)
def test_a_manifest_with_something_wrong(
    data_dir: Path, change: Callable[[Cut], object], message: str
) -> None:
    _edit(data_dir, change)
    with pytest.raises(ValueError, match=message) as error:
        list(_module(data_dir).valid_batches())
    assert "\n" not in str(error.value)


def test_a_damaged_store_of_features_is_a_short_line(data_dir: Path) -> None:
    """lhotse puts the whole utterance into its message."""
    (data_dir / "features" / "all.lca").write_bytes(b"no features" * 9000)
    with pytest.raises(ValueError, match=r"the features of 'u.' in .* cannot be read: ") as error:
        list(_module(data_dir).valid_batches())
    assert "extra info" not in str(error.value)
    assert len(str(error.value)) < len(str(data_dir)) + 500


@pytest.mark.parametrize("content", ["[]", "7", '"a"', "{", "nul", "[" * 5000, '{"id": "\\ud800"}'])
def test_lines_that_are_no_cuts(tmp_path: Path, content: str) -> None:
    path = tmp_path / "cuts.jsonl.gz"
    path.write_bytes(gzip.compress(content.encode()))
    with pytest.raises(ValueError, match=r"cuts.jsonl.gz:1: ") as error:
        list(read_entries(path))
    assert "\n" not in str(error.value)


def _stored(data_dir: Path, values: "np.ndarray[Any, Any]") -> None:
    """Gives the second utterance of both splits other features, in another kind of storage."""
    with NumpyFilesWriter(data_dir / "features" / "other") as writer:
        key = writer.write("u", values)
    other = {"storage_type": "numpy_files", "storage_key": key}

    def change(cut: Cut) -> None:
        path = data_dir / "features" / "other"
        relative = str(path.relative_to(data_dir))
        cut["features"].update(other, storage_path=relative)

    for split in ("train", "valid"):
        _edit(data_dir, change, split)


@pytest.mark.parametrize("workers", [0, 1])
def test_features_that_are_no_numbers_are_named(
    data_dir: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a worker too, without its traceback."""
    monkeypatch.setattr(Path, "is_file", Path.exists)  # this storage is a folder
    values = np.zeros((100, 80), np.float32)
    values[3, 3] = np.nan
    _stored(data_dir, values)
    with pytest.raises(ValueError, match=r"the features of 'u1' .* must be finite") as error:
        _train_ids(_module(data_dir, num_workers=workers))
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"the features of 'u4' .* must be finite"):
        list(_module(data_dir).valid_batches())


@pytest.mark.parametrize("buckets", [1, 2, 3, 10, 1000])
def test_any_number_of_buckets(data_dir: Path, buckets: int) -> None:
    assert _train_ids(_module(data_dir, num_buckets=buckets)) == ["u0", "u1", "u2"]


def test_one_utterance_to_train_on(data_dir: Path) -> None:
    path = data_dir / "cuts" / "train.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        first = json.loads(lines.readline())
    _write(path, [first])
    assert _train_ids(_module(data_dir)) == ["u0"]


def test_no_utterance_to_train_on(data_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"train.jsonl.gz' must have .* 3 that are left out"):
        _train_ids(_module(data_dir, min_frames=1000))
    shutil.copy(data_dir / "cuts/eval.jsonl.gz", data_dir / "cuts/train.jsonl.gz")
    with pytest.raises(ValueError, match=r"train.jsonl.gz' must have utterances to train on, but"):
        _train_ids(_module(data_dir))


def test_an_empty_split(data_dir: Path) -> None:
    """Training goes on without validation; decoding says that there is nothing to decode."""
    module = _module(data_dir)
    with pytest.raises(ValueError, match=r"split 'eval' has no utterances"):
        module.split_cuts("eval")
    with pytest.raises(ValueError, match=r"split 'eval' has no utterances"):
        list(module.split_batches("eval"))
    shutil.copy(data_dir / "cuts/eval.jsonl.gz", data_dir / "cuts/valid.jsonl.gz")
    assert list(_module(data_dir).valid_batches()) == []
