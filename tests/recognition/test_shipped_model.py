"""The shipped model on a fixed set of talks: real weights, so that what breaks between samples and
texts is seen as errors. The talks are made here by the open corpus's generator, each with a speaker
and sentences of the evaluation sets: two clean, two in a room with babble, two with lost packets.
"""

import ctypes
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyopenjtalk")
pytest.importorskip("scipy")
pytest.importorskip("lhotse")
pytest.importorskip("k2")
pytest.importorskip("_kaldifeat")
try:
    ctypes.CDLL("libHTSEngine.so.1")
except OSError:
    pytest.skip("libhtsengine1 is not installed: no voices", allow_module_level=True)
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from open_corpus import sources
from open_corpus.build import build_corpus
from open_corpus.hts import SAMPLE_RATE
from open_corpus.neural import HELD_OUT, NeuralEngine, NeuralVoice
from open_corpus.presets import preset
from open_corpus.prompts import DemoPrompts
from open_corpus.sources import NEURAL_VOICES
from open_corpus.words import clauses, labels, plain_word

from dualasr_lib.metrics.error_rate import count_errors
from dualasr_lib.recognition.bundle import Bundle, read_bundle, write_bundle
from dualasr_lib.recognition.default import default_bundle
from dualasr_lib.recognition.recogniser import Recogniser

ROOT = Path(__file__).parents[2]
TALKS = ("A01M0110", "A03F0072", "A01F0001", "A04M0051", "S00F0066", "S00M0008")
EXPECTED = {"streaming": (3.4, 4.8), "two passes": (0.1, 1.1)}
"""CER % in which each pass must lie on these talks: 31 and 4 errors of 761 characters were
measured, and other processors may round a few of them another way. A new model needs new ones."""

NEURAL = {"streaming": (2.6, 11.3), "two passes": (0.5, 6.5)}
"""The same of eight sentences in a neural voice: 13 and 4 errors of 186 characters."""

Errors = dict[str, float]


def _silent(stage: str, done: float, total: float) -> None:
    """A report that nobody reads."""


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    """Recordings and what was said in them."""
    cache = sources.cache_dir()
    try:
        sources.voice_files(cache)
    except RuntimeError as error:
        pytest.skip(f"no voices: {error}")
    whole = preset("demo", 1)
    seconds = dict.fromkeys(whole.seconds, 20.0)
    plan = replace(whole, seconds=seconds, only=TALKS, babble_clips=3)
    out = tmp_path_factory.mktemp("talks") / "corpus"
    build_corpus(plan, out, 1, cache, _silent)
    found = {}
    for path in sorted(out.glob("WORDS/*/*.tsv")):
        rows = [line.split("\t") for line in path.read_text("utf-8").splitlines()[1:]]
        audio = out / "WAV" / path.parent.name / f"{path.stem}.wav"
        found[audio] = "".join(row[3] for row in rows)
    assert len(found) == len(TALKS) and sum(map(len, found.values())) > 400
    return found


def errors(model: Path, talks: Mapping[Path, str]) -> Errors:
    """CER % of both passes."""
    recogniser = Recogniser.load(model, device="cpu")
    assert recogniser.rules.second_pass is not None
    wrong, total = dict.fromkeys(EXPECTED, 0), 0
    for audio, said in talks.items():
        heard = recogniser.transcribe(audio)
        first = "".join(segment.first_pass_text for segment in heard.segments)
        second = "".join(segment.text for segment in heard.segments)
        for name, text in zip(EXPECTED, (first, second)):
            wrong[name] += count_errors(said, text).errors
        total += len(said)
    return {name: 100 * count / total for name, count in wrong.items()}


def outside(found: Errors, expected: Mapping[str, tuple[float, float]] = EXPECTED) -> set[str]:
    """The passes whose errors left their interval."""
    return {name for name, (low, high) in expected.items() if not low <= found[name] <= high}


def test_the_shipped_model_makes_as_many_errors_as_ever(talks: dict[Path, str]) -> None:
    found = errors(default_bundle(), talks)
    assert not outside(found), found


@pytest.mark.timeout(900)  # a second of computing per second of neural speech, on a free core
def test_a_voice_of_another_kind_is_still_understood() -> None:
    """Neural speech of the voice that the model has not heard: the held-out one of `--neural`."""
    cache = sources.cache_dir()
    packages = (sources.KOKORO, *sources.KOKORO_PARTS, sources.RUNTIME)
    if not all((cache / package.file).is_file() for package in packages):
        pytest.skip("the neural voices (120 MB) were not downloaded: make a corpus with --neural")
    engine, prompts, rng = NeuralEngine(cache), DemoPrompts(), random.Random(1)
    engine.voice(NeuralVoice(tuple(float(name == HELD_OUT) for name in NEURAL_VOICES), 0.0))
    recogniser = Recogniser.load(device="cpu")
    wrong, total = dict.fromkeys(NEURAL, 0), 0
    for _ in range(8):
        words = [
            plain_word(n) for part in clauses(prompts.draw("eval", rng).text) or [] for n in part
        ]
        said, lines = "".join(word.text for word in words), labels(words)
        heard = recogniser.transcribe(engine.say(lines, [1.0] * len(lines)).samples, SAMPLE_RATE)
        first = "".join(segment.first_pass_text for segment in heard.segments)
        wrong["streaming"] += count_errors(said, first).errors
        wrong["two passes"] += count_errors(said, heard.text).errors
        total += len(said)
    found = {name: 100 * count / total for name, count in wrong.items()}
    assert not outside(found, NEURAL), (found, total)


def test_the_program_hears_with_it_where_no_model_is_named(talks: dict[Path, str]) -> None:
    audio, said = next(iter(talks.items()))
    done = subprocess.run(
        [sys.executable, "-m", "dualasr_lib.programs.transcribe", "--two-pass", str(audio)],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert count_errors(said, "".join(done.stdout.split())).rate < 0.1, done.stdout


def _scaled(bundle: Bundle) -> dict[str, Any]:
    """Weights of the streaming encoder's matrices 5 % too large, as by a wrong factor."""
    return {
        "weights": {
            name: value * 1.1
            if value.dim() > 1 and name.startswith("encoders.streaming")
            else value
            for name, value in bundle.weights.items()
        }
    }


def _narrow(bundle: Bundle) -> dict[str, Any]:
    """Filters up to 4000 Hz, as for telephones, in place of 7600."""
    features = {**bundle.config["features"], "high_freq": 4000.0}
    return {"config": {**bundle.config, "features": features}}


@pytest.mark.parametrize("fault", [_scaled, _narrow])
def test_a_planted_fault_is_found(fault: Any, talks: dict[Path, str], tmp_path: Path) -> None:
    bundle = read_bundle(default_bundle())
    write_bundle(replace(bundle, **fault(bundle)), tmp_path / "x.dualasr")
    found = errors(tmp_path / "x.dualasr", talks)
    print(found)
    assert outside(found), found
