"""Lhotse Shar: what batches are made of is the same, in whatever order, exactly once, and exactly
where a run was left."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lhotse")
pytest.importorskip("lilcom")
pytest.importorskip("_kaldifeat")
pytest.importorskip("kaldingram")
pytest.importorskip("sentencepiece")

from lhotse import CutSet

from dualasr_lib.data.batch import Batch
from dualasr_lib.data.data_config import AugmentConfig, DataConfig
from dualasr_lib.data.datamodule import DataModule
from dualasr_lib.data.shards import Shards, shar_folder
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.features.fbank import Fbank, FbankConfig
from dualasr_lib.recipe import shar
from dualasr_lib.recipe.prepare import prepare
from egs.csj.local.corpus import CSJ
from egs.csj.local.options import CsjOptions

LILCOM = 2**-5
"""Stored values are multiples of it, up to what a second compression does."""
QUIET = AugmentConfig(spec_augment_prob=0.0)


@pytest.fixture(scope="module")
def features(tiny_csj: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny corpus with shards of 20 utterances."""
    folder = tmp_path_factory.mktemp("shar")
    prepare(CSJ, CsjOptions(csj_dir=tiny_csj, data_dir=folder, open=True, jobs=1))
    shar.main(["--data-dir", str(folder), "--shard-size", "20"])
    return folder


@pytest.fixture(scope="module")
def audio(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audio") / "data"
    shutil.copytree(features, folder)
    shar.write_shar(folder, audio=True, shard_size=20)
    return folder


def _module(folder: Path, storage: Any, features: Any = "stored", **options: Any) -> DataModule:
    config = DataConfig(
        storage=storage,
        features=features,
        augment=QUIET,
        **{"max_duration": 20.0, "num_workers": 0} | options,
    )
    return DataModule(config, folder, Tokenizer.load(folder / "lang"), extract=Fbank(FbankConfig()))


def _by_id(batches: Iterator[Batch]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for batch in batches:
        for row, name in enumerate(batch.ids):
            assert name not in found
            features = batch.features[row, : int(batch.feature_lens[row])]
            found[name] = (features, batch.texts[row], batch.durations[row])
    return found


def test_the_folder_is_lhotses(features: Path) -> None:
    folder = shar_folder(features, "train")
    assert len(list(folder.glob("features.*.tar"))) == 5
    cuts = CutSet.from_shar(in_dir=folder)
    assert sum(1 for _ in cuts) == 99
    assert not list(features.glob("shar/.*"))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_has_each_utterance_once_as_it_is_stored(features: Path, workers: int) -> None:
    stored = _by_id(iter(_module(features, "files").train_batches(seed=3)))
    batches = _module(features, "shar", num_workers=workers).train_batches(seed=3)
    orders = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        read = _by_id(iter(batches))
        orders.append(list(read))
        assert read.keys() == stored.keys()
        for name, (values, *rest) in read.items():
            assert values.shape == stored[name][0].shape and tuple(rest) == stored[name][1:]
            assert float((values - stored[name][0]).abs().max()) <= LILCOM
    assert orders[0] != orders[1]


def test_shards_come_in_another_order_each_epoch(features: Path) -> None:
    shards = Shards(shar_folder(features, "train"), seed=3)
    orders = []
    for epoch in (0, 1, 0):
        shards.epoch = epoch
        orders.append([cut.id for cut in shards.cuts()])
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
    plain = [cut.id for cut in Shards(shar_folder(features, "train"), None).cuts()]
    assert plain not in orders  # of shards, not only of buckets


@pytest.mark.parametrize("done", [1, 4, 9])
def test_a_run_goes_on_in_mid_shard(features: Path, done: int) -> None:
    whole = list(_module(features, "shar").train_batches(seed=3))
    first = _module(features, "shar").train_batches(seed=3)
    iterator = iter(first)
    head = [next(iterator) for _ in range(done)]
    again = _module(features, "shar").train_batches(seed=3)
    again.load_state_dict(first.state_dict())
    for a, b in zip([*head, *again], whole, strict=True):
        assert a.ids == b.ids and torch.equal(a.features, b.features)


def test_ranks_share_an_epoch(features: Path) -> None:
    seen: list[str] = []
    for rank in range(3):
        batches = _module(features, "shar").train_batches(seed=3, rank=rank, world_size=3)
        seen += [name for batch in batches for name in batch.ids]
    own = {name.split("_dup")[0] for name in seen}
    assert own == {cut.id for cut in Shards(shar_folder(features, "train"), None).cuts()}
    assert len(seen) - len(own) <= 2, seen  # the last round is filled up


def test_audio_in_shards_gives_the_same_features(audio: Path) -> None:
    """FLAC has 16 bits: speeds were changed before they were rounded."""
    plain = _by_id(iter(_module(audio, "files", "computed").train_batches(seed=3)))
    read = _by_id(iter(_module(audio, "shar", "computed").train_batches(seed=3)))
    assert read.keys() == plain.keys()
    for name, (values, *_) in read.items():
        assert values.shape == plain[name][0].shape
        if "_sp" not in name:
            assert float((values - plain[name][0]).abs().max()) < 1e-4


def test_splits_are_decoded_from_shards(features: Path) -> None:
    stored = _by_id(_module(features, "files").split_batches("eval1"))
    read = _by_id(_module(features, "shar").split_batches("eval1"))
    assert list(read) == list(stored)
    for name, (values, *_) in stored.items():
        assert float((read[name][0] - values).abs().max()) <= LILCOM
    assert len(_module(features, "shar").split_cuts("eval1")[0].audio()) > 1000


def test_what_is_not_there_is_named(features: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(features, folder, ignore=shutil.ignore_patterns("shar"))
    with pytest.raises(ValueError, match=r"has no shards: python -m dualasr_lib\.recipe\.shar"):
        _module(folder, "shar").train_batches(seed=3)
    with pytest.raises(ValueError, match="--shard-size must be at least 1"):
        shar.main(["--data-dir", str(folder), "--shard-size", "0"])


def test_a_resume_with_other_storage_is_refused(features: Path) -> None:
    first = _module(features, "shar").train_batches(seed=3)
    next(iter(first))
    with pytest.raises(ValueError, match="must have the data and data options it was saved with"):
        _module(features, "files").train_batches(seed=3).load_state_dict(first.state_dict())
