"""`dualasr-export`: a folder that the real client reads, from an experiment as from a bundle; and
what is wrong in one line, with nothing left behind.
"""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("kaldi_native_fbank", reason="tools/setup.sh --torch2 installs it")
pytest.importorskip("onnx", reason="tools/setup.sh --torch2 installs it")
pytest.importorskip("onnxruntime", reason="tools/setup.sh --torch2 installs it")
pytest.importorskip("sherpa_onnx", reason="tools/setup.sh --torch2 installs it")
sys.path.insert(0, str(Path(__file__).parents[1] / "recognition"))

import sherpa_onnx
from random_model import write_home
from small_models import CHUNK, noise, small_model, torch_tokens

from dualasr_lib.core.files import file_hash
from dualasr_lib.export.folder import token_table, write_export
from dualasr_lib.features.fbank import FbankConfig
from dualasr_lib.programs.export import main
from dualasr_lib.recognition.bundle import write_bundle
from dualasr_lib.recognition.bundling import BundleJob, make_bundle

OPTIONS = ("--chunk-ms", "160", "--left-ms", "320")
FILES = {"README.md", "export.json", "tokens.txt", "full-ctc.onnx", "streaming-ctc.onnx"}


def test_an_experiment_and_its_bundle_give_the_same_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = small_model()
    home = write_home(tmp_path, model)
    out = tmp_path / "new" / "out"
    words = ("--exp-dir", str(home.exp), "--data-dir", str(home.data))
    main([*words, *OPTIONS, "--out", str(out), "--int8"])
    files = {path.name for path in out.iterdir()}
    assert files == FILES | {"full-ctc.int8.onnx", "streaming-ctc.int8.onnx"}
    assert [path.name for path in out.parent.iterdir()] == ["out"], "nothing else is left"
    facts = json.loads((out / "export.json").read_text(encoding="utf-8"))
    assert facts["weights"] == model.fingerprint
    assert facts["streaming"]["decode_chunk_len"] == "16"
    printed = capsys.readouterr().out
    for name, entry in facts["files"].items():
        assert entry == {"bytes": (out / name).stat().st_size, "sha256": file_hash(out / name)}
        assert f"{out / name}  {entry['bytes']:,} bytes" in printed
    page = (out / "README.md").read_text(encoding="utf-8")
    assert f"feed {facts['streaming']['tail_ms']} ms of zeros" in page

    write_bundle(make_bundle(BundleJob(exp_dir=home.exp, data_dir=home.data)), tmp_path / "b")
    again = tmp_path / "again"
    main(["--bundle", str(tmp_path / "b"), *OPTIONS, "--out", str(again)])
    assert {path.name for path in again.iterdir()} == FILES

    (audio,) = noise(20000)
    ids = {token: i for i, token in enumerate(model.tokenizer.tokens)}
    for folder in (out, again):
        recogniser = sherpa_onnx.OfflineRecognizer.from_zipformer_ctc(
            tokens=str(folder / "tokens.txt"), model=str(folder / "full-ctc.onnx")
        )
        stream = recogniser.create_stream()
        stream.accept_waveform(16000, audio.numpy())
        recogniser.decode_stream(stream)
        said = [ids[token] for token in stream.result.tokens]
        assert said == torch_tokens(model, audio, "full", CHUNK)


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(ValueError, match=r"must be new or empty, but .*out is there"):
        main(["--bundle", "none", "--out", str(tmp_path / "out")])
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]


def test_what_the_client_cannot_run_is_said_and_nothing_written(tmp_path: Path) -> None:
    model = small_model()
    features = dataclasses.replace(model.config, features=FbankConfig(low_freq=40.0))
    with pytest.raises(ValueError, match=r"with low_freq = 20.0, but the model .* 40.0"):
        write_export(dataclasses.replace(model, config=features), CHUNK, tmp_path / "out")
    odd = dataclasses.replace(CHUNK, frames=6, left=12)
    with pytest.raises(ValueError, match="multiple of each stack's downsampling"):
        write_export(model, odd, tmp_path / "out")
    with pytest.raises(ValueError, match="token 1 is 'a b'"):
        token_table(("<blk>", "a b"))
    assert not list(tmp_path.iterdir())
