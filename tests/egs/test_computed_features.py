"""Features that batches compute from recordings: equal to stored ones, in the same batches."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lhotse")
pytest.importorskip("lilcom")
pytest.importorskip("_kaldifeat")
pytest.importorskip("kaldingram")
pytest.importorskip("sentencepiece")

import soundfile

from dualasr_lib.core.program import one_line
from dualasr_lib.data.data_config import AugmentConfig, DataConfig
from dualasr_lib.data.datamodule import DataModule
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.features.fbank import Fbank, FbankConfig
from dualasr_lib.recipe.prepare import prepare
from dualasr_lib.recipe.stage import PrepareError, lock
from egs.csj.local.corpus import CSJ
from egs.csj.local.options import CsjOptions

QUIET = AugmentConfig(spec_augment_prob=0.0)
NOISY = AugmentConfig(
    spec_augment_prob=0.0,
    noise_cuts="noise/noise_cuts.jsonl.gz",
    noise_prob=1.0,
    noise_snr=(0.0, 0.0),
)
LILCOM = 2**-5  # stored values are rounded to multiples of it


@pytest.fixture(scope="module")
def folders(tiny_csj: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny corpus with stored features, and without."""
    noise = tmp_path_factory.mktemp("noise")
    generator = torch.Generator().manual_seed(0)
    hiss = 0.1 * torch.randn(16000 * 12, generator=generator)
    soundfile.write(noise / "hiss.wav", hiss.numpy(), 16000)
    made = {}
    for features in ("stored", "none"):
        folder = tmp_path_factory.mktemp(features)
        options: dict[str, Any] = {"features": features, "noise_dir": noise}
        prepare(CSJ, CsjOptions(csj_dir=tiny_csj, data_dir=folder, open=True, jobs=1, **options))
        made[features] = folder
    return made


def _module(folder: Path, features: Any, augment: AugmentConfig, **options: Any) -> DataModule:
    config = DataConfig(features=features, augment=augment, **{"max_duration": 20.0} | options)
    return DataModule(config, folder, Tokenizer.load(folder / "lang"), extract=Fbank(FbankConfig()))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_stored_features(folders: dict[str, Path], workers: int) -> None:
    """Also those of perturbed speed, and of a folder that has both."""
    stored = list(_module(folders["stored"], "stored", QUIET).train_batches(seed=3))
    assert any("_sp0.9" in name for batch in stored for name in batch.ids)
    for folder in folders.values():
        module = _module(folder, "computed", QUIET, num_workers=workers)
        computed = list(module.train_batches(seed=3))
        assert [batch.ids for batch in computed] == [batch.ids for batch in stored]
        for a, b in zip(computed, stored):
            assert torch.equal(a.feature_lens, b.feature_lens)
            assert float((a.features - b.features).abs().max()) <= LILCOM / 2 + 1e-4


def test_shards_of_several_machines_are_put_together(
    tiny_csj: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    """Two at once and one that is behind; then the whole run finds all of them done."""

    def options(**changes: Any) -> CsjOptions:
        return CsjOptions(csj_dir=tiny_csj, data_dir=tmp_path, open=True, jobs=1, **changes)

    with pytest.raises(PrepareError, match=r"stage 4 needs stage 3, which has not"):
        prepare(CSJ, options(shard="1/3"))
    prepare(CSJ, options(), last=3)
    with lock(tmp_path, shared=True):  # another machine is at work
        prepare(CSJ, options(shard="1/3"))
        prepare(CSJ, options(shard="3/3"))
        with pytest.raises(PrepareError, match=r"another prepare\.sh is at work"):
            prepare(CSJ, options())
    (scratch,) = (tmp_path / "tmp").glob("stage-4-*/scratch")
    done = {path.name: path.stat().st_mtime_ns for path in scratch.glob("*.jsonl.gz")}
    assert 0 < len(done) < 6
    prepare(CSJ, options(shard="2/3"))
    after = {path.name: path.stat().st_mtime_ns for path in scratch.glob("*.jsonl.gz")}
    assert len(after) == 6 and done.items() < after.items()
    assert not (tmp_path / "done" / "stage-4").exists()
    prepare(CSJ, options())
    assert not scratch.exists()
    for split in ("train", "eval1"):
        name = f"cuts/csj_cuts_{split}.jsonl.gz"
        assert (tmp_path / name).read_bytes() == (folders["stored"] / name).read_bytes()
        stored = f"features/{split}-00000.lca"
        assert (tmp_path / stored).read_bytes() == (folders["stored"] / stored).read_bytes()


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_a_shard_must_be_one(tiny_csj: Path, tmp_path: Path, shard: str) -> None:
    with pytest.raises(ValueError, match=r"--shard must be I/N with 1 <= I <= N"):
        CsjOptions(csj_dir=tiny_csj, data_dir=tmp_path, shard=shard)


def test_they_are_those_of_the_extractor(folders: dict[str, Path]) -> None:
    """Without any compression: at most 1e-4 off."""
    module = _module(folders["none"], "computed", QUIET)
    audio = {utterance.id: utterance.audio for utterance in module.split_cuts("eval1")}
    extract = Fbank(FbankConfig())
    for batch in module.split_batches("eval1"):
        for name, features, frames in zip(batch.ids, batch.features, batch.feature_lens):
            expected = extract(audio[name]())
            assert int(frames) == len(expected)
            assert float((features[: len(expected)] - expected).abs().max()) <= 1e-4


def test_noise_is_mixed_into_the_audio(folders: dict[str, Path]) -> None:
    """As loud as when features are mixed: log-mel energies agree but for the crossing terms."""
    batches = {
        features: next(iter(_module(folders[folder], features, NOISY).train_batches(seed=3)))
        for folder, features in (("stored", "stored"), ("none", "computed"))
    }
    clean = next(iter(_module(folders["none"], "computed", QUIET).train_batches(seed=3)))
    assert batches["computed"].ids == batches["stored"].ids == clean.ids
    length = int(clean.feature_lens.min())
    computed, stored, quiet = (
        batch.features[:, :length] for batch in (batches["computed"], batches["stored"], clean)
    )
    assert float((computed - quiet).mean()) > 0.5
    assert float((computed - stored).abs().mean()) < 0.5
    assert abs(float((computed - stored).mean())) < 0.3


def test_a_run_goes_on_in_mid_epoch(folders: dict[str, Path]) -> None:
    whole = list(_module(folders["none"], "computed", QUIET).train_batches(seed=3))
    first = _module(folders["none"], "computed", QUIET).train_batches(seed=3)
    iterator = iter(first)
    head = [next(iterator) for _ in range(3)]
    again = _module(folders["none"], "computed", QUIET).train_batches(seed=3)
    again.load_state_dict(first.state_dict())
    for a, b in zip([*head, *again], whole, strict=True):
        assert a.ids == b.ids and torch.equal(a.features, b.features)
    stored = _module(folders["stored"], "stored", QUIET).train_batches(seed=3)
    with pytest.raises(ValueError, match="must have the data and data options it was saved with"):
        stored.load_state_dict(first.state_dict())


def test_what_is_not_there_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no stored features .*data\.features=computed"):
        next(iter(_module(folders["none"], "stored", QUIET).split_batches("eval1")))
    moved = tmp_path / "data"
    shutil.copytree(folders["none"], moved)
    for manifest in (moved / "cuts").iterdir():
        _rewrite(manifest, "/WAV/", "/elsewhere/")
    with pytest.raises(ValueError, match=r"the audio of .* cannot be read") as caught:
        list(_module(moved, "computed", QUIET).split_batches("eval1"))
    assert len(one_line(caught.value)) < 600


def _rewrite(manifest: Path, old: str, new: str) -> None:
    import gzip

    text = gzip.decompress(manifest.read_bytes()).decode()
    assert old in text
    manifest.write_bytes(gzip.compress(text.replace(old, new).encode()))
