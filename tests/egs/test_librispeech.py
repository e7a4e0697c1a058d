"""egs/librispeech on a tiny tree of its format: prepared, trained, both branches and streams."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from tiny_training import run, train_arguments

pytest.importorskip("lhotse")
pytest.importorskip("_kaldifeat")
pytest.importorskip("k2")
pytest.importorskip("kaldingram")
pytest.importorskip("kaldingram")
pytest.importorskip("soundfile")

import soundfile

from dualasr_lib.data.folder import DataFolder
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.lattice.lexicon import LexiconLm
from dualasr_lib.programs.prepare import main
from egs.librispeech.local.corpus import LIBRISPEECH

TEXTS = ("THE CAT SAT", "A HAT THAT'S IT", "CATS AND HATS", "THE HAT SAT ON THE CAT")
ARPA = """\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-99 <s> -0.3
-1 </s>
-1 <UNK>
-1 THE -0.3
-1 CAT

\\2-grams:
-0.3 <s> THE
-0.2 THE CAT

\\end\\
"""


def make_tree(folder: Path) -> Path:
    """Three speakers to train on, one each in dev-clean-2 and test-clean; white noise as audio."""
    parts = {"train-clean-5": (1, 2, 3), "dev-clean-2": (4,), "test-clean": (5,)}
    for part, speakers in parts.items():
        for speaker in speakers:
            chapter = folder / "LibriSpeech" / part / str(speaker) / "10"
            chapter.mkdir(parents=True)
            lines = []
            for number, text in enumerate(TEXTS * 2):
                name = f"{speaker}-10-{number:04d}"
                noise = np.random.default_rng([speaker, number]).normal(
                    0, 0.1, 8000 * len(text.split())
                )
                soundfile.write(chapter / f"{name}.flac", noise, 16000)
                lines.append(f"{name} {text}\n")
            (chapter / f"{speaker}-10.trans.txt").write_text("".join(lines))
    return folder


def prepare(corpus: Path, data: Path, *more: object) -> int:
    command = ["--corpus-dir", corpus, "--data-dir", data, "--parts", "mini", "--jobs", 1]
    return main(LIBRISPEECH, [str(word) for word in (*command, "--vocab-size", 40, *more)])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("librispeech"))


@pytest.fixture(scope="module")
def data(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = tmp_path_factory.mktemp("given")
    (given / "3-gram.pruned.1e-7.arpa.gz").write_bytes(gzip.compress(ARPA.encode()))
    (given / "librispeech-lexicon.txt").write_text("THE\tDH AH\nCAT\tK AE T\nDOG\tD AO G\n")
    soundfile.write(given / "noise.wav", np.random.default_rng(0).normal(0, 0.1, 16000 * 8), 16000)
    folder = tmp_path_factory.mktemp("data")
    assert prepare(corpus, folder, "--lm-dir", given, "--noise-dir", given) == 0
    return folder


def test_what_it_is(data: Path) -> None:
    folder = DataFolder.read(data)
    assert (folder.language, folder.normaliser, folder.units) == (
        "en",
        "lower",
        ("word", "character"),
    )
    assert [(s.name, s.use) for s in folder.splits] == [
        ("train", "train"), ("dev", "valid"), ("test-clean", "eval"),
    ]  # fmt: skip
    assert (folder.tokens.kind, folder.tokens.vocab_size) == ("bpe", 40)
    texts = (data / "lang/text.txt").read_text().splitlines()
    assert texts == [text.lower() for text in TEXTS * 2] * 3


def test_given_ngrams_and_lexicon(data: Path) -> None:
    tokenizer = Tokenizer.load(data / "lang")
    lexicon = data / "lang/lexicon.txt"
    spelt = {line.split()[0]: line.split()[1:] for line in lexicon.read_text().splitlines()}
    assert spelt == {w: [tokenizer.tokens[i] for i in tokenizer.encode(w)] for w in ("cat", "the")}
    (arpa,) = (data / "lang").glob("words_*gram.arpa")
    assert arpa.name == "words_2gram.arpa"
    assert arpa.read_text() == ARPA.lower()
    symbols = {token: i for i, token in enumerate(tokenizer.tokens)}
    LexiconLm.load(lexicon, arpa, symbols)


def test_from_audio_to_errors_of_both_branches_and_streams(data: Path, tmp_path: Path) -> None:
    noise = 'data.augment.noise_cuts="noise/noise_cuts.jsonl.gz"'
    arguments = [*train_arguments(data, tmp_path), noise, "training.max_steps=8"]
    run("train.py", *arguments, recipe="librispeech")
    common = ("--exp-dir", tmp_path, "--data-dir", data, "--split", "test-clean")
    run("decode.py", *common, "--branch", "full", "streaming", recipe="librispeech")
    run("streaming_decode.py", *common, recipe="librispeech")
    for folder in ("full-1best", "streaming-1best", "streaming-online-1best"):
        summary = json.loads((tmp_path / "decode" / folder / "summary-test-clean.json").read_text())
        assert (summary["unit"], summary["normaliser"]) == ("word", "lower")
        assert summary["num_ref_words"] == 2 * sum(len(text.split()) for text in TEXTS)
        (also,) = summary["also"]
        assert also["unit"] == "character" and also["cer"] is not None
        errs = (tmp_path / "decode" / folder / "errs-test-clean.txt").read_text()
        assert f"over {summary['num_ref_words']} reference words" in errs
        assert "5-10-0000:\t" in errs


def test_what_does_not_fit_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = make_tree(tmp_path / "corpus")
    chapter = corpus / "LibriSpeech/train-clean-5/1/10"
    (chapter / "1-10-0001.flac").unlink()
    (chapter / "1-10-0002.flac").rename(chapter / "1-10-0099.flac")
    assert prepare(corpus, tmp_path / "data", "--stop-stage", 1) == 1
    errors = capsys.readouterr().err
    assert "bad unit 1-10-0001: no audio" in errors
    assert "bad unit 1-10-0002: no audio" in errors
    assert "bad unit 1-10-0099: no text" in errors
    assert "3 of 41 units are bad" in errors
    more = ("--stop-stage", 1, "--allow-bad", 3)
    assert prepare(corpus, tmp_path / "data", *more) == 0
    check = json.loads((tmp_path / "data/manifests/check.json").read_text())
    assert check["units_left_out"] == {
        "no audio": ["1-10-0001", "1-10-0002"],
        "no text": ["1-10-0099"],
    }
    with open(chapter / "1-10.trans.txt", "a") as file:
        file.write("1-10-0100\n")
    assert prepare(corpus, tmp_path / "other", *more) == 1
    assert "1-10.trans.txt:9: must be 'id text', is '1-10-0100'" in capsys.readouterr().err


def test_missing_parts_and_files_are_one_line(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more, message in (
        (
            ("--parts", "960"),
            "must have train-clean-100, train-clean-360, train-other-500, dev-clean",
        ),
        (("--lm-dir", tmp_path, "--stage", 6), "stage 6 needs stage 2"),
    ):
        assert prepare(corpus, tmp_path / "data", *more) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
