"""The runtime without torch says what the recogniser with torch says: texts, times, events."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("kaldi_native_fbank", reason="tools/setup.sh --torch2 installs it")
pytest.importorskip("onnx", reason="tools/setup.sh --torch2 installs it")
pytest.importorskip("onnxruntime", reason="tools/setup.sh --torch2 installs it")
from pairs import Pair
from small_models import CHUNK, noise

from dualasr_lib.decoding.events import Event, Final, Partial
from dualasr_lib.decoding.pool import Ended, ListenerPool
from dualasr_lib.features.fbank import FbankConfig
from dualasr_lib.features.native import NativeOnline
from dualasr_lib.features.online import OnlineFbank
from dualasr_lib.recognition.recogniser import Recogniser

ROOT = Path(__file__).parents[2]
_CHUNK_SAMPLES = 160 * 2 * CHUNK.frames
_FRAME = 640
"""Samples of an encoder frame."""


def said(events: Sequence[Event]) -> list[tuple[Any, ...]]:
    """What does not depend on the last bits of scores."""
    return [
        ("partial", e.segment, e.start_seconds, e.text, e.committed_text, e.audio_seconds)
        if isinstance(e, Partial)
        else ("final", e.segment, e.text, e.first_pass_text, e.reason, e.second_pass,
              tuple((token.text, token.seconds) for token in e.tokens))
        for e in events
    ]  # fmt: skip


def heard(recogniser: Recogniser, samples: np.ndarray, block: int) -> list[Event]:
    stream = recogniser.stream(16000)
    events: list[Event] = []
    for start in range(0, len(samples), block):
        events += stream.feed(samples[start : start + block])
    return [*events, *stream.finish()]


def with_silence(length: int) -> np.ndarray:
    """Noise with a second of silence in the middle."""
    x = noise(length)[0].numpy()
    x[length // 3 : length // 3 + 16000] = 0.0
    return x


def test_events_are_those_of_torch(pair: Pair) -> None:
    samples = with_silence(96000)
    ours, theirs = heard(pair.runtime, samples, 1000), heard(pair.torch, samples, 1000)
    assert said(ours) == said(theirs)
    finals = [event for event in ours if isinstance(event, Final)]
    assert {final.reason for final in finals} >= {"length", "end"} and len(finals) > 2
    assert any(final.text != final.first_pass_text for final in finals)
    assert len([event for event in ours if isinstance(event, Partial)]) > 10
    for final, other in zip(finals, (event for event in theirs if isinstance(event, Final))):
        assert final.confidences == pytest.approx(other.confidences, abs=1e-3)


def test_all_residues_of_length(pair: Pair) -> None:
    """Of encoder frames in a chunk, and lengths shorter than a window."""
    residues = range(0, _CHUNK_SAMPLES, _FRAME // 2)
    for length in (0, 1, 79, 200, *(3 * _CHUNK_SAMPLES + r for r in residues)):
        samples = noise(length)[0].numpy() if length else np.zeros(0, np.float32)
        ours, theirs = (r.transcribe(samples, 16000) for r in (pair.runtime, pair.torch))
        assert said(ours.segments) == said(theirs.segments), length


def test_streams_of_different_age_share_steps(pair: Pair) -> None:
    recordings = {f"s{i}": noise(30000 + 7777 * i)[0].numpy() for i in range(4)}
    pool = ListenerPool(pair.runtime.rules)
    events: dict[str, list[Any]] = {name: [] for name in recordings}
    position = dict.fromkeys(recordings, 0)
    turn = 0
    while len(pool) or turn == 0:
        for i, (name, samples) in enumerate(recordings.items()):
            if turn == 2 * i:
                pool.open(name)
            if name in pool and position[name] <= len(samples):
                pool.feed(name, samples[position[name] : position[name] + 3000])
                position[name] += 3000
                if position[name] > len(samples):
                    pool.finish(name)
        for name, news in pool.step().items():
            events[str(name)] += news
        turn += 1
    for name, samples in recordings.items():
        assert isinstance(events[name][-1], Ended)
        assert said(events[name][:-1]) == said(heard(pair.torch, samples, 3000)), name


def test_one_pass_alone(pair: Pair) -> None:
    recogniser = Recogniser.load(pair.folder, two_pass=False, endpoint=["max_seconds=inf"])
    samples = noise(32000)[0].numpy()
    assert recogniser.rules.second_pass is None
    finals = recogniser.transcribe(samples, 16000).segments
    assert finals and all(final.second_pass == "none" for final in finals)


def test_features_are_those_of_torch() -> None:
    config = FbankConfig()
    samples = torch.stack(noise(3 * 1600 + 120, 3 * 1600 + 120))
    native, online = NativeOnline(config), OnlineFbank(config)
    state, theirs = native.init_state(2), online.init_state(2)
    for step in range(3):
        window = samples[:, step * 1600 : step * 1600 + 1720]
        ours, state = native.step(window.numpy(), state, 1600)
        expected, theirs = online.step(window, theirs)
        assert np.allclose(ours, expected.numpy(), atol=2e-3)


_WITHOUT = """
import sys
for name in ("torch", "k2", "lhotse", "onnx", "kaldifeat", "tensorboard", "matplotlib", "scipy"):
    sys.modules[name] = None
"""


def process(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _WITHOUT + code, *words], capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_it_needs_no_torch(pair: Pair, tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    import soundfile

    samples = noise(40000)[0].numpy()
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    expected = pair.torch.transcribe(samples, 16000).text
    code = "import dualasr_lib; r = dualasr_lib.Recogniser.load(sys.argv[1])\n"
    done = process(code + "print(r.transcribe(sys.argv[2]).text)", str(pair.folder),
                   str(tmp_path / "a.wav"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == expected.strip()
    code = "from dualasr_lib.programs.transcribe import program\nprogram()"
    words = ("--bundle", str(pair.folder), "--two-pass", "--format", "json")
    done = process(code, *words, str(tmp_path / "a.wav"))
    assert done.returncode == 0, done.stderr
    texts = [segment["text"] for segment in json.loads(done.stdout)["segments"]]
    assert "".join(texts) == expected.replace("\n", "")


@pytest.mark.parametrize("name", ["full.onnx", "tokens.txt", "runtime.json"])
def test_a_damaged_set_is_refused(pair: Pair, tmp_path: Path, name: str) -> None:
    for file in pair.folder.iterdir():
        content = file.read_bytes()
        (tmp_path / file.name).write_bytes(content[:-9] if file.name == name else content)
    with pytest.raises(ValueError, match=r"damaged|must be what dualasr-export wrote") as error:
        Recogniser.load(tmp_path)
    assert "\n" not in str(error.value)


def test_options_that_it_has_no_use_for(pair: Pair) -> None:
    with pytest.raises(ValueError, match="leave out chunk_ms"):
        Recogniser.load(pair.folder, chunk_ms=640)
