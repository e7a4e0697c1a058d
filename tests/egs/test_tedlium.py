"""egs/tedlium3 on a tiny tree of its format: STM and SPH, suffixes, <unk>, what is not scored."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lhotse")
pytest.importorskip("_kaldifeat")
pytest.importorskip("kaldilm")
pytest.importorskip("kaldingram")
pytest.importorskip("soundfile")

import soundfile

from dualasr_lib.data.datamodule import DataConfig, DataModule
from dualasr_lib.data.folder import DataFolder
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.programs.prepare import main
from dualasr_lib.recipe.stage import read_jsonl
from egs.tedlium3.local.corpus import TEDLIUM

LINES = (
    ("they 're here and that 's it", "they're here and that's it"),
    ("a <unk> talk about [NOISE] music", "a talk about music"),
    ("in the ' 60s {SMACK} <sil> we read(2) it", "in the '60s we read it"),
    ("ignore_time_segment_in_scoring", None),
    ("<unk>", ""),
)


def make_tree(folder: Path) -> Path:
    """Talks of 10 s with one segment every 2 s."""
    parts = {"train": ("Ann_2001", "Bo_2002"), "dev": ("Cy_2003",), "test": ("Di_2004",)}
    for part, talks in parts.items():
        for kind in ("stm", "sph"):
            (folder / "legacy" / part / kind).mkdir(parents=True)
        for talk in talks:
            noise = np.random.default_rng(list(talk.encode())).normal(0, 0.1, 160000)
            path = folder / "legacy" / part / "sph" / f"{talk}.sph"
            soundfile.write(path, noise, 16000, format="NIST", subtype="PCM_16")
            lines = [
                f"{talk} 1 {talk} {2.0 * i:.2f} {2.0 * i + 1.8:.2f} <o,f0,female> {text}\n"
                for i, (text, _) in enumerate(LINES)
            ]
            (folder / "legacy" / part / "stm" / f"{talk}.stm").write_text("".join(lines))
    return folder


def prepare(corpus: Path, data: Path, *more: object) -> int:
    command = ("--corpus-dir", corpus, "--data-dir", data, "--jobs", 1, "--vocab-size", 35, *more)
    return main(TEDLIUM, [str(word) for word in command])


def test_from_stm_and_sph_to_batches(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert prepare(make_tree(tmp_path / "corpus"), data) == 0
    folder = DataFolder.read(data)
    assert (folder.corpus, folder.normaliser) == ("tedlium", "tedlium")
    assert folder.units == ("word", "character")
    texts = (data / "lang/text.txt").read_text().splitlines()
    assert texts == [text for _, text in LINES if text] * 2
    check = json.loads((data / "manifests/check.json").read_text())
    talks = ("Ann_2001", "Bo_2002", "Cy_2003", "Di_2004")
    assert check["units_left_out"] == {"not to be scored": [f"{talk}-3" for talk in talks]}
    left_out = json.loads((data / "utterances/left_out.json").read_text())
    assert left_out["test"] == {"no text": ["Di_2004-4"]}
    module = DataModule(DataConfig(num_workers=0), data, Tokenizer.load(data / "lang"))
    cuts = module.split_cuts("test")
    assert [(cut.id, cut.text) for cut in cuts] == [
        (f"Di_2004-{i}", text) for i, (_, text) in enumerate(LINES) if text
    ]
    assert len(cuts[0].audio()) == round(1.8 * 16000)
    (batch,) = module.valid_batches()
    assert len(batch.ids) == 3


def test_a_dry_run_reads_the_same_texts(tmp_path: Path) -> None:
    corpus = make_tree(tmp_path / "corpus")
    assert prepare(corpus, tmp_path / "data", "--dry-run") == 0
    report = json.loads((tmp_path / "data/dry-run/report.json").read_text())
    assert {kind: len(items) for kind, items in report["doubts"].items()} == {
        "empty-text": 4, "text-in-splits": 4, "digits": 4, "not to be scored": 4,
    }  # fmt: skip


def test_what_does_not_fit_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = make_tree(tmp_path / "corpus")
    stm = corpus / "legacy/train/stm/Ann_2001.stm"
    with open(stm, "a") as file:
        file.write("Ann_2001 1 Ann_2001 11.0 12.0 <o,f0,female> behind the end\n")
    assert prepare(corpus, tmp_path / "data", "--stop-stage", 1) == 1
    errors = capsys.readouterr().err
    assert "bad unit Ann_2001-5: lhotse left it out: it lies outside its audio" in errors
    assert prepare(corpus, tmp_path / "data", "--stop-stage", 1, "--allow-bad", 1) == 0
    units = list(read_jsonl(tmp_path / "data/manifests/tedlium_supervisions_train.jsonl.gz"))
    assert len(units) == 8
    capsys.readouterr()
    (corpus / "legacy/dev/sph/Cy_2003.sph").unlink()
    assert prepare(corpus, tmp_path / "other") == 1
    assert "1 talks have no audio or no text (first: Cy_2003, no audio)" in capsys.readouterr().err
    stm.write_text("Ann_2001 1 Ann_2001 now then <o> hello\n")
    assert prepare(corpus, tmp_path / "other") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "Ann_2001.stm:1: must be 'talk channel speaker start end <label> text'" in line


@pytest.mark.parametrize(
    ("edited", "message"),
    [
        (lambda text: b"\xef\xbb\xbf" + text, "but begins with a byte order mark"),
        (lambda text: text.decode().encode("utf-16"), "but begins with a byte order mark"),
        (gzip.compress, "but begins with gzip's mark"),
        (
            lambda text: text + b"a\n\x82\xa0\n",
            r"Cy_2003.stm:7: must be UTF-8, but has the bytes b'",
        ),
    ],
)
def test_a_transcript_that_lhotse_would_misread(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], edited: Any, message: str
) -> None:
    stm = make_tree(tmp_path / "corpus") / "legacy/dev/stm/Cy_2003.stm"
    stm.write_bytes(edited(stm.read_bytes()))
    assert prepare(tmp_path / "corpus", tmp_path / "data") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{stm}" in line and message in line


@pytest.mark.parametrize("space", ["\t", "\u3000", "\u00a0"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_white_space_of_any_kind(tmp_path: Path, space: str, end: str) -> None:
    """Is what lhotse takes it for."""
    stm = make_tree(tmp_path / "corpus") / "legacy/dev/stm/Cy_2003.stm"
    stm.write_bytes(stm.read_text().replace(" ", space).replace("\n", end).encode())
    data = tmp_path / "data"
    assert prepare(tmp_path / "corpus", data, "--stop-stage", 2) == 0
    units = list(read_jsonl(data / "manifests/tedlium_supervisions_dev.jsonl.gz"))
    assert [unit["id"] for unit in units] == [f"Cy_2003-{i}" for i in (0, 1, 2, 4)]
