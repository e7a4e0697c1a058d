"""`dualasr-transcribe` around a model whose audio spells its text: files in, files out, errors."""

import json
import math
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("soundfile")
pytest.importorskip("lhotse")
pytest.importorskip("sentencepiece")

import soundfile

from dualasr_lib.decoding.confidence import ConfidentSearch
from dualasr_lib.decoding.contract import ModelStep, Rewritten, Sentence
from dualasr_lib.decoding.events import LiveConfig
from dualasr_lib.decoding.greedy import OnlineGreedy
from dualasr_lib.decoding.hypothesis import TokenPath
from dualasr_lib.decoding.live import Rules
from dualasr_lib.decoding.one_head import OneHead
from dualasr_lib.metrics.calibration import Calibration
from dualasr_lib.programs import transcribe
from dualasr_lib.recognition.recogniser import Recogniser

_TOKENS = "_あいうえお"
_FRAME = 640


class SpellingModel:
    """Encoder frame s says token round(10 x sample 640 s + 320)."""

    sample_rate = 16000
    frame_shift_samples = 160
    chunk_samples = 2 * _FRAME
    lookahead_samples = 120
    chunk_frames = 2

    def init_state(self, batch: int) -> Any:
        return (torch.zeros(batch, 1),)

    def num_feature_frames(self, num_samples: int) -> int:
        return (num_samples + 80) // 160

    def num_output_frames(self, num_samples: int) -> int:
        return math.ceil(self.num_feature_frames(num_samples) / 4)

    def step(self, window: Tensor, frames_left: Tensor, state: Any) -> ModelStep:
        tokens = (window[:, [320, 960]] * 10).round().long()
        log_probs = torch.nn.functional.one_hot(tokens, 6).float().mul(9).log_softmax(dim=2)
        return ModelStep({"ctc": log_probs}, state, hidden=log_probs)


def detokenise(tokens: Sequence[int]) -> str:
    return "".join(_TOKENS[token] for token in tokens)


def exclaim(sentence: Sentence) -> Rewritten:
    """A second pass that hears あ everywhere; memory runs out once in a long sentence."""
    hidden = sentence.hidden
    return Rewritten(TokenPath((1,), (0,), 0.0), fallbacks=int(len(hidden) > 50))


def recogniser(second_pass: Any = None) -> Recogniser:
    search = ConfidentSearch(OneHead(OnlineGreedy()), KNOWN)
    rules = Rules(SpellingModel(), search, detokenise, LiveConfig(), second_pass)
    return Recogniser(rules, "weights: of a test", KNOWN)


KNOWN = Calibration(slope=1.0, offset=0.0, mean=0.9, floor=0.8)


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]
Write = Callable[..., Path]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The console script with these arguments."""

    def call(*arguments: object) -> Outcome:
        def load(options: Any) -> Recogniser:
            return recogniser(exclaim if options.decode.two_pass else None)

        argv = ["dualasr-transcribe", "--exp-dir", "E", "--data-dir", "D", *map(str, arguments)]
        monkeypatch.setattr(transcribe, "load_engine", load)
        monkeypatch.setattr(sys, "argv", argv)
        code = 0
        try:
            transcribe.program()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(name: str, text: str, channels: int = 1) -> Path:
        ids = np.array([_TOKENS.index(token) for token in text], dtype=np.float32) / 10
        samples = np.repeat(ids, _FRAME)
        soundfile.write(tmp_path / name, np.stack([samples] * channels, axis=1), 16000)
        return tmp_path / name

    return make


PAUSE = "_" * 30


def test_text_to_standard_output(run: Run, write: Write) -> None:
    outcome = run(write("a.wav", f"あ_い{PAUSE}う_え"))
    assert outcome.code == 0
    assert outcome.out == "あい\nうえ\n"
    assert "RTF" in outcome.err and "1 seconds of audio" in outcome.err


def test_partials_on_standard_error(run: Run, write: Write) -> None:
    outcome = run(write("a.flac", "あ___い_", channels=2), "--partials")
    assert outcome.out == "あい\n"
    lines = [line.split() for line in outcome.err.splitlines() if " s  " in line]
    assert [line[2] for line in lines] == ["あ", "あい", "="]
    assert lines[-1][3:] == ["あい", "[end]"]


def test_what_the_second_pass_changes_is_shown(run: Run, write: Write) -> None:
    outcome = run(write("a.wav", f"い_う{PAUSE}あ_"), "--two-pass", "--partials")
    shown = [line.split("  ")[-2] for line in outcome.err.splitlines() if " s  = " in line]
    assert shown == ["= [いう→あ]", "= あ"]
    assert "weights: of a test" in outcome.err


def test_standard_input(run: Run, write: Write, tmp_path: Path,
                        monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    with write("a.wav", "あ_い").open("rb") as file:
        monkeypatch.setattr(sys, "stdin", file)
        outcome = run("-", "--format", "json")
    document = json.loads(outcome.out)
    assert (document["file"], document["segments"][0]["text"]) == ("standard input", "あい")
    with write("b.flac", "う").open("rb") as file:
        monkeypatch.setattr(sys, "stdin", file)
        run("-", "--out-dir", tmp_path / "out")
    assert (tmp_path / "out" / "stdin.txt").read_text(encoding="utf-8") == "う\n"


def test_a_pipe_that_does_not_know_its_length(run: Run, write: Write, tmp_path: Path) -> None:
    content = bytearray(write("a.wav", f"あ{PAUSE}い_").read_bytes())
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(content))
    writer.start()
    outcome = run(tmp_path / "pipe")
    writer.join()
    assert (outcome.code, outcome.out) == (0, "あ\nい\n")
    assert "RTF" in outcome.err


def test_a_second_pass_that_fails_is_told(run: Run, write: Write,
                                          monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    def fail(sentence: Sentence) -> Rewritten:
        raise MemoryError("no room")

    monkeypatch.setattr(sys.modules[__name__], "exclaim", fail)
    outcome = run(write("a.wav", f"い_う{PAUSE}え"), "--two-pass")
    assert (outcome.code, outcome.out) == (0, "いう\nえ\n")
    assert "second pass failed in 2 sentences" in outcome.err
    assert "at 0.00 s: no room" in outcome.err


def test_two_pass(run: Run, write: Write) -> None:
    outcome = run(write("a.wav", f"い_う{PAUSE}え"), "--two-pass")
    assert outcome.out == "あ\nあ\n"
    assert "memory" not in outcome.err


def test_speech_that_the_model_has_not_learnt_is_told(
    run: Run, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("a.wav", f"い_う{PAUSE}え_あ")
    outcome = run(path, "--format", "json")
    assert "far from" not in outcome.err
    document = json.loads(outcome.out)
    assert (document["calibrated"], document["out_of_domain"]) == (True, False)
    assert document["segments"][1]["tokens"][0]["confidence"] > 0.95
    monkeypatch.setattr(sys.modules[__name__], "KNOWN", replace(KNOWN, floor=0.99))
    outcome = run(path, "--format", "json")
    (warning,) = [line for line in outcome.err.splitlines() if "far from" in line]
    assert f"{path}: this is far from the speech that the model has learnt" in warning
    assert json.loads(outcome.out)["out_of_domain"] is True
    assert outcome.code == 0


def test_fall_backs_of_the_second_pass_are_told(run: Run, write: Write) -> None:
    path = write("a.wav", f"い{'う_' * 30}{PAUSE}{'え_' * 30}{PAUSE}え")
    outcome = run(path, "--two-pass")
    assert outcome.code == 0
    assert f"{path}: memory ran out 2 times in the second pass" in outcome.err


def test_several_files(run: Run, write: Write) -> None:
    a, b = write("a.wav", "あ"), write("b.wav", "い")
    assert run(a, b).out == f"==> {a} <==\nあ\n==> {b} <==\nい\n"
    lines = run(a, b, "--format", "json").out.splitlines()
    assert [json.loads(line)["file"] for line in lines] == [str(a), str(b)]


@pytest.mark.parametrize("kind", ["text", "json", "srt", "vtt"])
def test_a_file_per_input(run: Run, write: Write, tmp_path: Path, kind: str) -> None:
    a, b = write("a.wav", "あ"), write("b.wav", "い")
    outcome = run(a, b, "--format", kind, "--out-dir", tmp_path / "new/out")
    assert (outcome.code, outcome.out) == (0, "")
    suffix = "txt" if kind == "text" else kind
    names = sorted(path.name for path in (tmp_path / "new/out").iterdir())
    assert names == [f"a.{suffix}", f"b.{suffix}"]
    assert "い" in (tmp_path / f"new/out/b.{suffix}").read_text(encoding="utf-8")


def test_a_bad_file_does_not_stop_the_others(run: Run, write: Write, tmp_path: Path) -> None:
    cut = write("cut.flac", "あいうえ" * 200)
    cut.write_bytes(cut.read_bytes()[:-800])
    files = [tmp_path / "missing.wav", cut, write("good.wav", "う")]
    outcome = run(*files, "--out-dir", tmp_path / "out")
    assert outcome.code == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.txt"]
    errors = [line for line in outcome.err.splitlines() if "error" in line]
    assert len(errors) == 2
    assert "missing.wav" in errors[0] and "cut.flac" in errors[1]
    assert "Traceback" not in outcome.err


def test_a_bad_file_prints_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no audio " * 99)
    outcome = run(tmp_path / "text.wav")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.count("\n") == 1


def test_sentences_that_are_not_sure_can_be_left_out(run: Run, write: Write) -> None:
    """Frames between two tokens are no sure ones; nothing goes unsaid."""
    path = write("a.wav", f"あ_い{PAUSE}う_え")
    sure = json.loads(run(path, "--format", "json").out)["segments"]
    least = (max(item["confidence"] for item in sure) + 1) / 2
    assert run(path, "--min-confidence", 0.5).out == "あい\nうえ\n"
    outcome = run(path, "--min-confidence", least)
    assert (outcome.code, outcome.out) == (0, "")
    assert "2 of 2 sentences are less sure than --min-confidence" in outcome.err
    captions = run(path, "--min-confidence", least, "--format", "vtt")
    assert captions.out == "WEBVTT\n\n"


def test_silence_gives_no_text(run: Run, write: Write) -> None:
    outcome = run(write("a.wav", "_" * 125))
    assert (outcome.code, outcome.out) == (0, "")


def test_arguments_that_cannot_be(run: Run, write: Write, tmp_path: Path) -> None:
    a = write("a.wav", "あ")
    (tmp_path / "b").mkdir()
    b = write("b/a.wav", "い")
    cases = [
        ((a, b, "--format", "srt"), "--out-dir"),
        ((a, b, "--out-dir", tmp_path), "both be written"),
        ((a, "--out-dir", a), "must be a folder"),
        ((a, "--max-chars", 0), "--max-chars"),
        ((a, "--min-confidence", 1.5), "--min-confidence must be from 0 to 1, but is 1.5"),
        ((a, "--min-confidence", "nan"), "--min-confidence must be from 0 to 1, but is nan"),
        (("-", a, "-"), "can be read once only"),
    ]
    for arguments, message in cases:
        outcome = run(*arguments)
        assert (outcome.code, outcome.out) == (1, "")
        assert message in outcome.err
        assert outcome.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "b"]
