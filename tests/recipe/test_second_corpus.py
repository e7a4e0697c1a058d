"""A corpus of another kind through the shared recipe: English, 8 kHz, nothing joined, words."""

import hashlib
import json
import shutil
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lhotse")
pytest.importorskip("lilcom")
pytest.importorskip("_kaldifeat")
pytest.importorskip("kaldingram")
pytest.importorskip("matplotlib")

from lhotse import Recording

from dualasr_lib.data.datamodule import DataConfig, DataModule
from dualasr_lib.data.folder import DATA_FILE, DataFolder
from dualasr_lib.data.pieces import PieceType
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.programs.prepare import main
from dualasr_lib.recipe.corpus import Corpus, Item, Join, Split
from dualasr_lib.recipe.options import Options, option
from dualasr_lib.recipe.stage import Folders, read_jsonl, write_jsonl

TEXTS = ("The CAT sat.", "a hat -- that's it", "...", "cats and hats", "the hat sat")


@dataclass(frozen=True, kw_only=True)
class TinyOptions(Options):
    """Of the tiny corpus."""

    corpus_dir: Path = option(what="the corpus")
    vocab_type: PieceType = option("bpe", what="kind of tokens", stage=5)
    vocab_size: int = option(30, what="tokens")
    join_up_to: float = option(0.0, what="seconds", stage=3)

    @property
    def source(self) -> Path:
        return self.corpus_dir


def _manifests(options: TinyOptions, folders: Folders) -> None:
    for part in ("train", "dev", "test"):
        recordings, units = [], []
        for path in sorted((options.corpus_dir / part).glob("*.wav")):
            recording = Recording.from_file(path)
            recordings.append(recording.to_dict())
            for number, text in enumerate(TEXTS):
                units.append(
                    {
                        "id": f"{path.stem}-{number}", "recording_id": path.stem,
                        "start": float(number), "duration": 0.9, "channel": 0,
                        "text": text, "speaker": path.stem,
                    }
                )  # fmt: skip
        write_jsonl(folders.out / "manifests" / f"tiny_recordings_{part}.jsonl.gz", recordings)
        write_jsonl(folders.out / "manifests" / f"tiny_supervisions_{part}.jsonl.gz", units)


def _join(options: TinyOptions) -> Join | None:
    return Join(options.join_up_to, between_texts=" ") if options.join_up_to else None


def _refuse(_: TinyOptions, unit: Item) -> str | None:
    return "a cat" if unit["text"] == "cats and hats" else None


TINY = Corpus(
    name="tiny",
    description="A tiny corpus.",
    language="en",
    units=("word", "character"),
    options=TinyOptions,
    splits=lambda _: (
        Split("train", ("train",), "train"),
        Split("dev", ("dev",), "valid"),
        Split("test", ("test",), "eval", pooled=True),
    ),
    manifests=_manifests,
    normaliser=lambda _: "english",
    refuse=_refuse,
    join=_join,
    speeds=(0.9,),
)


def make_audio(folder: Path) -> Path:
    for part, names in {"train": "abc", "dev": "d", "test": "ef"}.items():
        (folder / part).mkdir(parents=True)
        for name in names:
            samples = np.random.default_rng(ord(name)).integers(-3000, 3000, 8000 * 5)
            with wave.open(str(folder / part / f"{name}.wav"), "wb") as file:
                file.setparams((1, 2, 8000, 0, "NONE", ""))
                file.writeframes(samples.astype(np.int16).tobytes())
    return folder


def run(corpus: Path, data: Path, *more: str) -> int:
    return main(TINY, ["--corpus-dir", str(corpus), "--data-dir", str(data), "--jobs", "1", *more])


def hashes(data: Path) -> dict[str, str]:
    return {
        str(path.relative_to(data)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(data.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_audio(tmp_path_factory.mktemp("tiny") / "corpus")


@pytest.fixture(scope="module")
def data(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    assert run(corpus, folder) == 0
    return folder


def test_it_says_what_it_is(data: Path) -> None:
    folder = DataFolder.read(data)
    assert (folder.corpus, folder.language, folder.normaliser) == ("tiny", "en", "english")
    assert folder.units == ("word", "character")
    assert [(s.name, s.use, s.pooled) for s in folder.splits] == [
        ("train", "train", False),
        ("dev", "valid", False),
        ("test", "eval", True),
    ]
    assert (folder.tokens.kind, folder.tokens.vocab_size) == ("bpe", 30)


def test_texts_are_normalised_and_what_is_left_out_is_named(data: Path) -> None:
    left_out = json.loads((data / "utterances" / "left_out.json").read_text())
    assert left_out["dev"] == {"a cat": ["d-3"], "no text": ["d-2"]}
    texts = (data / "lang" / "text.txt").read_text().splitlines()
    assert texts == ["the cat sat", "a hat that's it", "the hat sat"] * 3
    lexicon = (data / "lang" / "lexicon.txt").read_text().splitlines()
    assert [line.split()[0] for line in lexicon] == [
        "a",
        "cat",
        "hat",
        "it",
        "sat",
        "that's",
        "the",
    ]
    assert (data / "lang" / "words_3gram.arpa").is_file()


def test_training_and_decoding_read_it(data: Path) -> None:
    tokenizer = Tokenizer.load(data / "lang")
    module = DataModule(DataConfig(max_duration=9.0, num_workers=0), data, tokenizer)
    ids = [id_ for batch in module.train_batches(seed=0) for id_ in batch.ids]
    plain = [f"{name}-{number}" for name in "abc" for number in (0, 1, 4)]
    assert sorted(ids) == sorted([*plain, *(f"{id_}_sp0.9" for id_ in plain)])
    utterance = module.split_cuts("test")[0]
    assert (utterance.id, utterance.text) == ("e-0", "the cat sat")
    assert len(utterance.audio()) == round(0.9 * 16000)  # resampled
    (batch,) = module.valid_batches()
    assert [tokenizer.decode(tokenizer.encode(text)) for text in batch.texts] == list(batch.texts)


def test_joined_texts_have_a_space_between(corpus: Path, tmp_path: Path) -> None:
    assert run(corpus, tmp_path, "--join-up-to", "4", "--stop-stage", "3") == 0
    cuts = list(read_jsonl(tmp_path / "utterances" / "tiny_cuts_dev.jsonl.gz"))
    assert [(cut["id"], cut["supervisions"][0]["text"]) for cut in cuts] == [
        ("d-0", "the cat sat a hat that's it"),
        ("d-4", "the hat sat"),
    ]
    assert not (tmp_path / DATA_FILE).exists()


def test_the_description_is_away_while_a_stage_is_made_again(
    data: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "data"
    shutil.copytree(data, mine)
    for marker in (mine / "done").iterdir():
        if marker.name > "stage-2":
            marker.unlink()
    assert run(corpus, mine, "--stage", "3", "--stop-stage", "4", "--join-up-to", "4") == 0
    assert not (mine / DATA_FILE).exists()
    assert run(corpus, mine, "--join-up-to", "4") == 0
    assert DataFolder.read(mine) == DataFolder.read(data)
    capsys.readouterr()
    assert run(corpus, mine) == 1
    assert "join_up_to was 4.0, is 0.0" in capsys.readouterr().err


def test_a_moved_corpus_is_followed(corpus: Path, data: Path, tmp_path: Path) -> None:
    """The same bytes as if the corpus had always been there."""
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(corpus, first)
    followed, fresh = tmp_path / "followed", tmp_path / "fresh"
    assert run(first, followed) == 0
    first.rename(second)
    assert run(second, followed) == 0
    assert run(second, fresh) == 0
    assert hashes(followed) == hashes(fresh)
    tokenizer = Tokenizer.load(followed / "lang")
    module = DataModule(DataConfig(), followed, tokenizer)
    assert len(module.split_cuts("test")[0].audio()) == round(0.9 * 16000)


def test_another_corpus_is_not_followed(
    corpus: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(corpus, other)
    path = other / "test" / "f.wav"
    path.write_bytes(path.read_bytes()[:-4000])
    (other / "test" / "e.wav").unlink()
    before = hashes(data)
    assert run(other, data) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "2 of its recordings are missing or have another length (first: e)" in error
    assert hashes(data) == before


def test_options_come_from_the_fields(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(TINY, ["--help"])
    shown = capsys.readouterr().out
    assert shown.index("--corpus-dir") < shown.index("--jobs") < shown.index("--stop-stage")
    assert "A tiny corpus." in shown
    with pytest.raises(SystemExit):
        main(TINY, ["--corpus-dir", "x"])
    assert "--data-dir" in capsys.readouterr().err
