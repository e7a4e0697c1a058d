"""DataModule: resumable batches, the same with workers, augmentation by key, refused utterances."""

import gzip
import itertools
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("lhotse")
pytest.importorskip("lilcom")
pytest.importorskip("sentencepiece")

from lhotse import LilcomChunkyWriter

from dualasr_lib.data.batch import Batch
from dualasr_lib.data.data_config import AugmentConfig, DataConfig
from dualasr_lib.data.datamodule import DataModule
from dualasr_lib.data.folder import DataFolder, SplitInfo, TokensInfo
from dualasr_lib.data.tokenizer import Tokenizer

ALPHABET = "あいうえおかきくけこ"
QUIET = AugmentConfig(spec_augment_prob=0.0)


def _cut(writer: LilcomChunkyWriter, cut_id: str, num_frames: int, text: str) -> dict[str, Any]:
    rng = np.random.default_rng(list(cut_id.encode()))
    key = writer.write(cut_id, rng.normal(-8, 3, (num_frames, 80)).astype(np.float32))
    duration = num_frames / 100
    features = {
        "type": "kaldifeat-fbank",
        "num_frames": num_frames,
        "num_features": 80,
        "frame_shift": 0.01,
        "sampling_rate": 16000,
        "start": 0.0,
        "duration": duration,
        "storage_type": "lilcom_chunky",
        "storage_path": f"features/{Path(writer.storage_path).name}",
        "storage_key": key,
        "channels": 0,
    }
    supervision = {
        "id": cut_id,
        "recording_id": cut_id,
        "start": 0.0,
        "duration": duration,
        "channel": 0,
        "text": text,
        "alignment": {"word": [[text[:1], 0.0, 0.05, None]]},
    }
    shared = {"id": cut_id, "start": 0.0, "duration": duration, "channel": 0, "type": "MonoCut"}
    return shared | {"supervisions": [supervision], "features": features}


def _write(path: Path, items: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for item in items:
            print(json.dumps(item, ensure_ascii=False), file=file)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 training utterances, 5 for validation, 4 of noise, and two without a CTC alignment."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "features").mkdir()
    rng = random.Random(0)
    with LilcomChunkyWriter(folder / "features" / "all.lca") as writer:
        for split, count in (("train", 40), ("valid", 5)):
            cuts = []
            for i in range(count):
                text = "".join(rng.choice(ALPHABET) for _ in range(rng.randint(2, 6)))
                cuts.append(_cut(writer, f"{split}-{i:02d}", rng.randint(60, 300), text))
            if split == "train":
                cuts.append(_cut(writer, "repeats", 16, "ああ" + "い"))  # 4 frames = 3 + 1: fits
                cuts.append(_cut(writer, "too-many", 16, "あああ"))  # 4 frames < 3 + 2
                cuts.append(_cut(writer, "too-short", 8, "あ"))
            _write(folder / "cuts" / f"{split}.jsonl.gz", cuts)
        noise = [_cut(writer, f"noise-{i}", 90, "") for i in range(4)]
        _write(folder / "noise.jsonl.gz", noise)
    DataFolder(
        corpus="tiny",
        language="ja",
        normaliser="none",
        units=("character",),
        features={},
        splits=(
            SplitInfo(name="train", use="train", cuts="cuts/train.jsonl.gz"),
            SplitInfo(name="valid", use="valid", cuts="cuts/valid.jsonl.gz"),
            SplitInfo(name="eval2", use="eval", cuts="cuts/eval2.jsonl.gz"),
        ),
        tokens=TokensInfo(kind="char", vocab_size=len(ALPHABET) + 3),
    ).write(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([ALPHABET])


def _quarter(lens: Tensor) -> Tensor:
    return (lens + 3) // 4


def _module(folder: Path, tokenizer: Tokenizer, **options: Any) -> DataModule:
    config = {"max_duration": 6.0, "num_buckets": 3, "num_workers": 0} | options
    return DataModule(DataConfig(**config), folder, tokenizer, _quarter)


def _same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(
        a.ids == b.ids and torch.equal(a.features, b.features) and torch.equal(a.tokens, b.tokens)
        for a, b in zip(left, right, strict=True)
    )


def test_an_epoch_has_each_utterance_once(data_dir: Path, tokenizer: Tokenizer) -> None:
    batches = list(_module(data_dir, tokenizer).train_batches(seed=1))
    ids = [utterance for batch in batches for utterance in batch.ids]
    assert sorted(ids) == sorted([f"train-{i:02d}" for i in range(40)] + ["repeats"])
    assert len(batches) > 8
    assert all(sum(batch.durations) <= 6.0 for batch in batches)
    for batch in batches:
        assert [tokenizer.decode(row[:n].tolist()) for row, n in _rows(batch)] == list(batch.texts)


def _rows(batch: Batch) -> Iterable[tuple[Tensor, int]]:
    return zip(batch.tokens, batch.token_lens.tolist(), strict=True)


def test_refused_utterances_are_named(data_dir: Path, tokenizer: Tokenizer) -> None:
    refused = {item.id: item.reason for item in _module(data_dir, tokenizer).refused()}
    assert refused == {
        "too-many": "4 encoder frames for 3 tokens and 2 repeats",
        "too-short": "8 frames, fewer than 9",
    }


def test_epochs_differ_and_repeat(data_dir: Path, tokenizer: Tokenizer) -> None:
    batches = _module(data_dir, tokenizer).train_batches(seed=1)
    epochs = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        epochs.append(list(batches))
    assert _same(epochs[0], epochs[2])
    assert [batch.ids for batch in epochs[0]] != [batch.ids for batch in epochs[1]]


@pytest.mark.parametrize("noise", ["", "noise.jsonl.gz"])
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_batches(
    data_dir: Path, tokenizer: Tokenizer, workers: int, noise: str
) -> None:
    augment = AugmentConfig(noise_cuts=noise)
    alone = _module(data_dir, tokenizer, augment=augment).train_batches(seed=3)
    helped = _module(data_dir, tokenizer, augment=augment, num_workers=workers)
    assert _same(list(alone), list(helped.train_batches(seed=3)))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_epoch_goes_on_exactly(
    data_dir: Path, tokenizer: Tokenizer, workers: int
) -> None:
    options = {"num_workers": workers, "augment": AugmentConfig(noise_cuts="noise.jsonl.gz")}
    whole = _module(data_dir, tokenizer, **options).train_batches(seed=5)
    whole.set_epoch(2)
    expected = list(whole)

    stopped = _module(data_dir, tokenizer, **options).train_batches(seed=5)
    stopped.set_epoch(2)
    first = list(itertools.islice(stopped, 4))
    state = json.loads(json.dumps(stopped.state_dict()))

    random.seed(99)  # a restarted program has other global generators
    torch.manual_seed(99)
    resumed = _module(data_dir, tokenizer, **options).train_batches(seed=5)
    resumed.set_epoch(2)
    resumed.load_state_dict(state)
    assert _same(first + list(resumed), expected)
    resumed.set_epoch(3)
    whole.set_epoch(3)
    assert _same(list(resumed), list(whole))


def test_a_state_of_other_options_is_refused(data_dir: Path, tokenizer: Tokenizer) -> None:
    state = _module(data_dir, tokenizer).train_batches(seed=5).state_dict()
    other_seed = _module(data_dir, tokenizer).train_batches(seed=6)
    other_size = _module(data_dir, tokenizer, max_duration=7.0).train_batches(seed=5)
    for other in (other_seed, other_size):
        with pytest.raises(ValueError, match="must have the data"):
            other.load_state_dict(state)


def test_ranks_share_an_epoch(data_dir: Path, tokenizer: Tokenizer) -> None:
    ranks = [
        list(_module(data_dir, tokenizer).train_batches(seed=1, rank=rank, world_size=2))
        for rank in range(2)
    ]
    assert len(ranks[0]) == len(ranks[1])
    ids = [utterance for batches in ranks for batch in batches for utterance in batch.ids]
    assert len(set(ids)) == 41
    assert len(ids) - len(set(ids)) <= 1  # lhotse may fill up the last batch


def test_global_generators_are_left_alone(data_dir: Path, tokenizer: Tokenizer) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002

    def seed() -> None:
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)

    seed()
    expected = draw()
    seed()
    augment = AugmentConfig(noise_cuts="noise.jsonl.gz", noise_prob=1.0)
    list(_module(data_dir, tokenizer, augment=augment).train_batches(seed=1))
    assert draw() == expected


def test_spec_augment_masks_valid_frames_only(data_dir: Path, tokenizer: Tokenizer) -> None:
    def by_id(augment: AugmentConfig) -> dict[str, Tensor]:
        batches = _module(data_dir, tokenizer, augment=augment).train_batches(seed=1)
        return {
            id_: batch.features[i, : batch.feature_lens[i]]
            for batch in batches
            for i, id_ in enumerate(batch.ids)
        }

    plain, masked = by_id(QUIET), by_id(AugmentConfig(spec_augment_prob=1.0, time_warp=0))
    assert plain.keys() == masked.keys()
    changed = [id_ for id_ in plain if not torch.equal(plain[id_], masked[id_])]
    assert len(changed) > 35
    for id_ in changed:
        differs = plain[id_] != masked[id_]
        assert torch.allclose(masked[id_][differs], plain[id_].mean(), atol=1e-4)


def test_noise_is_mixed_at_the_asked_ratio(data_dir: Path, tokenizer: Tokenizer) -> None:
    """The energy added per utterance is what the signal-to-noise ratio says, within storage
    error.
    """
    loud = AugmentConfig(
        spec_augment_prob=0.0, noise_cuts="noise.jsonl.gz", noise_prob=1.0, noise_snr=(10.0, 10.0)
    )
    clean = list(_module(data_dir, tokenizer, augment=QUIET).train_batches(seed=1))
    noisy = list(_module(data_dir, tokenizer, augment=loud).train_batches(seed=1))
    assert [batch.ids for batch in clean] == [batch.ids for batch in noisy]
    assert [b.feature_lens.tolist() for b in clean] == [b.feature_lens.tolist() for b in noisy]
    for before, after in zip(clean, noisy, strict=True):
        for i, n in enumerate(before.feature_lens.tolist()):
            energy, mixed = (b.features[i, :n].double().exp().sum() for b in (before, after))
            pieces = -(-n // 90)  # noise cuts of 90 frames, each scaled to the ratio
            added = float((mixed - energy) / energy)
            assert 0.5 * 0.1 < added < 1.5 * 0.1 * pieces


def test_evaluation_batches_are_plain(data_dir: Path, tokenizer: Tokenizer) -> None:
    module = _module(data_dir, tokenizer)
    first, second = list(module.valid_batches()), list(module.split_batches("valid"))
    assert _same(first, second)
    ids = [utterance for batch in first for utterance in batch.ids]
    assert sorted(ids) == [f"valid-{i:02d}" for i in range(5)]
    durations = [duration for batch in first for duration in batch.durations]
    assert durations == sorted(durations, reverse=True)


def test_utterances_carry_their_words(data_dir: Path, tokenizer: Tokenizer) -> None:
    utterances = _module(data_dir, tokenizer).split_cuts("valid")
    assert [utterance.id for utterance in utterances] == [f"valid-{i:02d}" for i in range(5)]
    word = utterances[0].words[0]
    assert (word.text, word.start, word.end) == (utterances[0].text[0], 0.0, 0.05)


def test_a_missing_split_is_a_clear_error(data_dir: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"no split 'eval9' .* it has train, valid, eval2"):
        _module(data_dir, tokenizer).split_cuts("eval9")
    with pytest.raises(ValueError, match=r"cuts/eval2.jsonl.gz' is missing"):
        _module(data_dir, tokenizer).split_cuts("eval2")


def test_a_folder_that_does_not_say_what_it_is_is_refused(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"data.json' is missing.* Run the recipe's prepare.sh"):
        _module(tmp_path, tokenizer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_duration": 0.0}, "'max_duration' must be greater than 0"),
        ({"num_workers": -1}, "'num_workers' must be at least 0"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(**options)
    with pytest.raises(ValueError, match="noise_snr"):
        AugmentConfig(noise_snr=(20.0, 10.0))
