"""What callers from Python hand over, not programs: paths as strings, arrays of numpy, samples of
16 bits. Each is taken as what it means, or refused in one line. (tests/decoding/test_samples.py and
test_listener_inputs.py: blocks of running audio.)
"""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("sentencepiece")
pytest.importorskip("soundfile")

import soundfile

from dualasr_lib.core import archive
from dualasr_lib.core import checkpoint as checkpoints
from dualasr_lib.core.checkpoint import Checkpoint
from dualasr_lib.core.config import read_toml
from dualasr_lib.core.files import file_hash, write_atomically
from dualasr_lib.core.text import read_text
from dualasr_lib.core.weights import load_weights
from dualasr_lib.data.audio import open_audio
from dualasr_lib.data.folder import DataFolder, SplitInfo, SplitUse, TokensInfo
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.decoding.hypothesis import Hypothesis, TokenPath
from dualasr_lib.decoding.recogs import read_recogs
from dualasr_lib.decoding.results import read_result, read_results
from dualasr_lib.decoding.writer import result_files, write_results
from dualasr_lib.features.fbank import Fbank, FbankConfig
from dualasr_lib.features.online import OnlineFbank
from dualasr_lib.features.samples import check_samples
from dualasr_lib.recognition.bundle import Bundle, is_bundle, read_bundle, write_bundle
from dualasr_lib.recognition.decode_config import DecodeConfig
from dualasr_lib.recognition.initial import read_trained
from dualasr_lib.training.contract import Run

HYPOTHESIS = Hypothesis(id="u", ref="あ", text="あ", duration=1.0, path=TokenPath((), (), 0.0))
CHECKPOINT = Checkpoint(1, 1, {"a": torch.ones(2)}, {}, 0, {}, {"tokenizer": "x"}, {})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of each kind."""
    folder = tmp_path_factory.mktemp("from_python")
    checkpoints.save(CHECKPOINT, folder / "epoch-1.pt")
    tokenizer = Tokenizer.train(["あい"])
    tokenizer.save(folder / "lang")
    model, tokens = (folder / "lang/sentencepiece.model").read_bytes(), tokenizer.tokens_txt()
    bundle = Bundle(weights={"a": torch.ones(2)}, config={}, tokenizer=model, tokens=tokens,
                    source="x")  # fmt: skip
    write_bundle(bundle, folder / "x.dualasr")
    (folder / "x.toml").write_text("a = 1\n")
    soundfile.write(folder / "x.wav", np.zeros(1600, np.float32), 16000)
    uses: tuple[SplitUse, ...] = ("train", "valid")
    DataFolder(
        corpus="x", language="ja", normaliser="none", units=("character",), features={},
        splits=tuple(SplitInfo(name=u, use=u, cuts=f"{u}.gz") for u in uses),
        tokens=TokensInfo(kind="char", vocab_size=5),
    ).write(folder)  # fmt: skip
    with gzip.open(folder / "valid.gz", "wt") as file:
        file.write(json.dumps({"recording": {"sources": [{"source": "a.wav"}]}}) + "\n")
    summary = {"split": "s", "unit": "character", "branch": "full", "method": "m"}
    summary |= {"ins": 0, "del": 0, "sub": 0, "num_utterances": 1, "num_ref_chars": 1}
    write_results(folder / "decode/full-m", [HYPOTHESIS], summary)
    return folder


READERS: list[tuple[Callable[[Any], Any], str]] = [
    (checkpoints.load, "epoch-1.pt"),
    (checkpoints.newest, ""),
    (lambda path: checkpoints.find(path, 1), ""),
    (load_weights, ""),
    (archive.read, "epoch-1.pt"),
    (read_trained, "epoch-1.pt"),
    (read_trained, "x.dualasr"),
    (read_bundle, "x.dualasr"),
    (is_bundle, "x.dualasr"),
    (file_hash, "x.toml"),
    (read_toml, "x.toml"),
    (read_text, "x.toml"),
    (lambda path: Tokenizer.load(path).tokens, "lang"),
    (DataFolder.read, ""),
    (lambda path: open_audio(path).num_frames, "x.wav"),
    (read_results, ""),
    (read_result, "decode/full-m/summary-s.json"),
    (read_recogs, "decode/full-m/recogs-s.txt"),
    (lambda path: result_files(path, "s"), "decode/full-m"),
]


@pytest.mark.parametrize("number", range(len(READERS)))
def test_a_string_is_a_path_to_whoever_reads(place: Path, number: int) -> None:
    read, name = READERS[number]
    assert repr(read(str(place / name))) == repr(read(place / name))


@pytest.mark.parametrize("number", range(len(READERS)))
@pytest.mark.parametrize("path", [None, 3.5, ["a"]])
def test_no_path_is_one_line(path: Any, number: int) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        READERS[number][0](path)
    assert str(caught.value) and "\n" not in str(caught.value)
    assert "expected str, bytes or os.PathLike" in str(caught.value)


def test_a_string_is_a_path_to_whoever_writes(place: Path, tmp_path: Path) -> None:
    folder = str(tmp_path)
    checkpoints.save(CHECKPOINT, f"{folder}/epoch-1.pt")
    archive.write([1], f"{folder}/archive.pt")
    write_bundle(read_bundle(place / "x.dualasr"), f"{folder}/x.dualasr")
    write_atomically(f"{folder}/sub/x.txt", b"x")
    Tokenizer.load(place / "lang").save(f"{folder}/lang")
    DataFolder.read(place).write(folder)
    summary = json.loads((place / "decode/full-m/summary-s.json").read_text())
    write_results(f"{folder}/out", [HYPOTHESIS], summary)
    for name in ("epoch-1.pt", "archive.pt", "x.dualasr", "sub/x.txt", "lang/tokens.txt",
                 "data.json", "out/recogs-s.txt"):  # fmt: skip
        assert (tmp_path / name).stat().st_size > 0


def test_options_that_are_kept_refuse_strings() -> None:
    with pytest.raises(ValueError, match=r"`data_dir` must be a pathlib.Path, but is 'DATA'"):
        DecodeConfig(exp_dir=Path("EXP"), data_dir="DATA")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`directory` must be a pathlib.Path, but is 'EXP'"):
        Run(directory="EXP")  # type: ignore[arg-type]


SAMPLES = 0.1 * np.random.default_rng(0).standard_normal(4000).astype(np.float32)
BAD: list[tuple[Any, str]] = [
    (SAMPLES, "ndarray of float32"),
    ((SAMPLES * 32768).astype(np.int16), "ndarray of int16"),
    (SAMPLES.tolist(), "but is list"),
    (None, "but is NoneType"),
    (torch.from_numpy(SAMPLES).double(), "torch.float64"),
    (torch.from_numpy((SAMPLES * 32768).astype(np.int16)), "torch.int16"),
    (torch.from_numpy(SAMPLES * 32768), r"must be in \[-1, 1\], but reach \d+"),
]


@pytest.mark.parametrize(("samples", "message"), BAD)
def test_extractors_convert_nothing_and_say_so(samples: Any, message: str) -> None:
    """int16-scaled floats gave features of nonsense in silence."""
    config = FbankConfig()
    pytest.importorskip("kaldi_native_fbank")
    with pytest.raises(ValueError, match=message) as caught:
        Fbank(config)(samples)
    assert "\n" not in str(caught.value) and "32768" in str(caught.value)
    online = OnlineFbank(config)
    whole = samples[None, : 10 * 160 + 120] if hasattr(samples, "dtype") else samples
    with pytest.raises(ValueError, match=message):
        online.step(whole, online.init_state(1))


def test_what_is_audio_passes() -> None:
    for samples in (torch.zeros(0), torch.tensor([1.5, float("nan"), -8.0])):
        check_samples(samples, 1, "(n,)")
    with pytest.raises(ValueError, match=r"of shape \(n,\), but is .* of \(1, 0\)"):
        check_samples(torch.zeros(1, 0), 1, "(n,)")
    with pytest.raises(ValueError, match="but reach 12000"):
        check_samples(torch.tensor([float("nan"), -12000.0]), 1, "(n,)")
