"""`dualasr-export`: a folder that the real client reads, from an experiment as from a bundle; and
what is wrong in one line, with nothing left behind.
"""

import contextlib
import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("kaldi_native_fbank", reason="tools/setup.sh --torch2 installs it")
pytest.importorskip("onnx", reason="tools/setup.sh --torch2 installs it")
pytest.importorskip("onnxruntime", reason="tools/setup.sh --torch2 installs it")
pytest.importorskip("sherpa_onnx", reason="tools/setup.sh --torch2 installs it")
sys.path.insert(0, str(Path(__file__).parents[1] / "recognition"))

import sherpa_onnx
from random_model import write_home
from small_models import (
    CHUNK,
    noise,
    small_model,
    torch_frames,
    torch_tokens,
    transducer_model,
    transducer_tables,
)

from dualasr_lib.core.files import file_hash
from dualasr_lib.decoding.transducer.greedy import TransducerGreedy
from dualasr_lib.decoding.transducer.options import GreedyConfig
from dualasr_lib.export.folder import token_table, write_export
from dualasr_lib.features.fbank import FbankConfig
from dualasr_lib.model.joint import Branch
from dualasr_lib.programs.export import main
from dualasr_lib.recognition.bundle import write_bundle
from dualasr_lib.recognition.bundling import BundleJob, make_bundle
from dualasr_lib.recognition.trained_model import TrainedModel

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


@pytest.mark.parametrize("branch", ["streaming", "full"])
def test_what_its_readme_says_works(tmp_path: Path, branch: Branch) -> None:
    """The Python calls and, where sherpa-onnx-bin is there, the commands."""
    model = transducer_model(branches=(branch,))
    out = tmp_path / "out"
    facts = write_export(model, CHUNK, out)
    page = (out / "README.md").read_text(encoding="utf-8")
    audio = write_wave(out / "FILE.wav", noise(20000)[0])
    tail = 16 * facts["streaming"]["tail_ms"] if branch == "streaming" else 0
    expected = torch_texts(model, torch.cat([audio, torch.zeros(tail)]), branch)
    programs = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(programs) == len(expected)
    for program, text in zip(programs, expected):
        found: dict[str, Any] = {"samples": audio.numpy()}
        with contextlib.chdir(out):
            exec(program, found)
        check_text(found["text"], text, "Online" in program)

    commands = re.findall(r"^    (sherpa-onnx.*)$", page, re.MULTILINE)
    assert len(commands) == len(expected)
    if shutil.which("sherpa-onnx") is None:
        pytest.skip("its programs are not here (pip install sherpa-onnx-bin)")
    for command, text in zip(commands, expected):
        ran = subprocess.run(
            shlex.split(command), cwd=out, capture_output=True, text=True, check=True
        )
        tokens = re.search(r'"tokens": (\[.*?\])', ran.stdout + ran.stderr)
        assert tokens, ran
        check_text("".join(json.loads(tokens[1])), text, "offline" not in command)


def torch_texts(model: TrainedModel, audio: Tensor, branch: Branch) -> list[str]:
    """With CTC and with the transducer, greedy."""
    search = TransducerGreedy(transducer_tables(model, branch), GreedyConfig())
    (step,) = search.step([torch_frames(model, audio, branch, CHUNK)], [search.open()])
    both = torch_tokens(model, audio, branch, CHUNK), search.finish(step.state).tokens
    return ["".join(model.tokenizer.tokens[token] for token in tokens) for tokens in both]


def check_text(found: str, expected: str, stream: bool) -> None:
    """Of a stream torch also hears the last, incomplete chunk of the silence."""
    assert len(found) > 3, "the model says too little to prove anything"
    assert found == (expected[: len(found)] if stream else expected)


def write_wave(path: Path, audio: Tensor) -> Tensor:
    """The samples (n,) that whoever reads the file gets, 16 bits each."""
    whole = (audio.clamp(-1, 1) * 32767).round()
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, len(audio), "NONE", ""))
        file.writeframes(whole.short().numpy().tobytes())
    return whole / 32768


def test_heads_that_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = transducer_model(branches=("full",))
    home = write_home(tmp_path, model)
    words = ("--exp-dir", str(home.exp), "--data-dir", str(home.data), *OPTIONS)
    main([*words, "--out", str(tmp_path / "out"), "--head", "transducer", "--int8"])
    assert {path.name for path in (tmp_path / "out").glob("*.onnx")} == {
        "full-transducer-encoder.onnx",
        "full-transducer-encoder.int8.onnx",
        "full-transducer-decoder.onnx",
        "full-transducer-joiner.onnx",
        "full-transducer-joiner.int8.onnx",
    }
    with pytest.raises(ValueError, match=r"--head transducer must be .* but it has ctc"):
        write_export(small_model(), CHUNK, tmp_path / "other", heads=["transducer"])
    with pytest.raises(ValueError, match="needs a CTC or a transducer head"):
        write_export(small_model(heads=("attention",)), CHUNK, tmp_path / "other")
    with pytest.raises(SystemExit):
        main([*words, "--out", str(tmp_path / "other"), "--head", "attention"])
    assert not (tmp_path / "other").exists()


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
