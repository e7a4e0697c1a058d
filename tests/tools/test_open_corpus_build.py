"""Real voices: the engine, the same bytes whatever the processes, resuming, refusals."""

import ctypes
import hashlib
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("pyopenjtalk")
pytest.importorskip("scipy")
pytest.importorskip("lhotse")
try:
    ctypes.CDLL("libHTSEngine.so.1")
except OSError:
    pytest.skip("libhtsengine1 is not installed", allow_module_level=True)

from open_corpus import sources
from open_corpus.build import build_corpus
from open_corpus.hts import FRAME_SAMPLES, Engine, Voice
from open_corpus.plan import Plan, speakers, talks
from open_corpus.presets import PRESETS, preset
from open_corpus.speakers import Speaker
from open_corpus.words import clauses, labels, plain_word

_VOICE = Voice(
    weights=(0.5, 0.5),
    alpha=0.55,
    half_tone=0.0,
    gv_mcep=1.0,
    gv_lf0=1.0,
    msd_threshold=0.5,
    mcep_shift=(0.0, 0.1, -0.05),
)


def _silent(stage: str, done: float, total: float) -> None:
    """A report that nobody reads."""


@pytest.fixture(scope="module")
def cache() -> Path:
    """The user's cache of voices, filled if it must be."""
    folder = sources.cache_dir()
    try:
        sources.voice_files(folder)
    except RuntimeError as error:
        pytest.skip(f"no voices: {error}")
    return folder


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Two talks, one of them a dialogue, both with babble."""
    whole = preset("demo", 1)
    seconds = dict.fromkeys(whole.seconds, 2.0)
    ids = ("A01F0001", "D03F0058")
    conditions = dict.fromkeys(("eval2", "valid"), whole.conditions["eval2"])
    small = {"babble_clips": 2, "babble_seconds": 1.0, "conditions": conditions}
    return replace(whole, seconds=seconds, only=ids, **small)


@pytest.fixture(scope="module")
def corpus(plan: Plan, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "one"
    summary = build_corpus(plan, out, 1, cache, _silent)
    assert summary is not None and summary.talks == 2
    return out


def _digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(x.relative_to(root)): hashlib.sha256(x.read_bytes()).hexdigest() for x in files}


def _labels(text: str) -> list[str]:
    return labels([plain_word(node) for clause in clauses(text) or [] for node in clause])


def test_engine_repeats_itself_and_forgets_the_last_voice(cache: Path) -> None:
    lines = _labels("駅に行く")
    fresh, used = Engine(sources.voice_files(cache)), Engine(sources.voice_files(cache))
    used.voice(_VOICE._replace(weights=(1.0, 0.0), half_tone=5.0, mcep_shift=(), alpha=0.5))
    used.say(lines, [1.0] * len(lines))
    results = []
    for engine in (fresh, used):
        engine.voice(_VOICE)
        results.append(engine.say(lines, [1.0] * len(lines)))
    np.testing.assert_array_equal(results[0].samples, results[1].samples)
    np.testing.assert_array_equal(results[0].phone_frames, results[1].phone_frames)
    assert np.abs(results[0].samples).max() > 0.02


def test_durations_follow_the_stretch(cache: Path) -> None:
    lines = _labels("駅に行く")
    engine = Engine(sources.voice_files(cache))
    engine.voice(_VOICE)
    natural = engine.say(lines, [1.0] * len(lines)).phone_frames
    stretch = [1.0] * len(lines)
    stretch[3] = 3.0
    speech = engine.say(lines, stretch)
    expected = natural.copy()
    expected[3] = np.maximum(5, np.round(3.0 * natural[3]))
    np.testing.assert_array_equal(speech.phone_frames, expected)
    assert len(speech.samples) == speech.phone_frames.sum() * FRAME_SAMPLES


def test_no_phone_is_taken_for_silence_late_in_a_sentence(cache: Path) -> None:
    """The male voice gave half a second to each phone from the eighth accent phrase on."""
    lines = _labels("それから昨日の夜は先生と六人でゆっくり山で川を渡ったと思います")
    engine = Engine(sources.voice_files(cache))
    engine.voice(_VOICE._replace(weights=(0.0, 1.0)))
    frames = engine.say(lines, [1.0] * len(lines)).phone_frames
    assert frames[1:-1].max() < 60


def _extremes(name: str) -> list[Speaker]:
    """The speakers of a preset with the least and greatest share, pitch and warping."""
    plan = preset(name, seed=1)
    everyone = [x for talk in talks(plan) for x in speakers(plan, talk.id).values()]
    everyone = [x for x in everyone if isinstance(x.voice, Voice)]
    ranked = [
        sorted(everyone, key=lambda x: x.voice.weights),
        sorted(everyone, key=lambda x: x.voice.half_tone),
        sorted(everyone, key=lambda x: x.voice.alpha),
    ]
    return [speaker for ranking in ranked for speaker in (ranking[0], ranking[-1])]


def _voiced_share(samples: npt.NDArray[np.float32]) -> float:
    """Share of 40 ms frames (n samples at 48 kHz) that are loud and periodic at 60 to 500 Hz.

    Loud: within 25 dB of the loudest, so a burst makes all else quiet. Periodic: the
    autocorrelation, corrected for the window, exceeds 0.6 of the power.
    """
    size, window = 1920, np.hanning(1920)
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[::960]
    frames = (frames - frames.mean(1, keepdims=True)) * window
    power = (frames**2).sum(1)
    loud = power > power.max() * 10**-2.5
    spectra = np.abs(np.fft.rfft(np.vstack([frames[loud], window]), 2 * size)) ** 2
    correlation = np.fft.irfft(spectra)[:, 96:800]
    ratio = correlation[:-1] / power[loud, None] * ((window**2).sum() / correlation[-1])
    return float((ratio.max(1) > 0.6).sum() / len(frames))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_the_most_extreme_speakers_are_voiced(name: str, cache: Path) -> None:
    """A tenth outside the voices 0.05 to 0.4 of this sentence was voiced, inside 0.7 or more."""
    engine = Engine(sources.voice_files(cache))
    lines = _labels("青い海の上を大きな鳥が飛んでいるのを山の上から見ました")
    for speaker in _extremes(name):
        engine.voice(speaker.voice)
        speech = engine.say(lines, [1 / speaker.rate] * len(lines))
        first, last = speech.phone_frames[[0, -1]] * FRAME_SAMPLES
        assert _voiced_share(speech.samples[first:-last]) > 0.62, speaker


def test_engine_refuses_what_does_not_fit(cache: Path) -> None:
    engine = Engine(sources.voice_files(cache))
    with pytest.raises(ValueError, match="`weights` must have one entry"):
        engine.voice(_VOICE._replace(weights=(1.0,)))
    with pytest.raises(ValueError, match=r"`weights` must lie in \[0, 1\]"):
        engine.voice(_VOICE._replace(weights=(-0.01, 1.01)))
    with pytest.raises(ValueError, match="`stretch`"):
        engine.say(_labels("駅"), [1.0])


def test_a_missing_library_is_named(
    plan: Plan, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str | None) -> ctypes.CDLL:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("open_corpus.hts.ctypes.CDLL", missing)
    with pytest.raises(RuntimeError, match="apt-get install libhtsengine1"):
        build_corpus(plan, tmp_path / "none", 2, cache, _silent)


def test_any_number_of_processes_gives_the_same_bytes(
    plan: Plan, corpus: Path, cache: Path, tmp_path: Path
) -> None:
    build_corpus(plan, tmp_path / "two", 2, cache, _silent)
    assert _digests(tmp_path / "two") == _digests(corpus)
    names = set(_digests(corpus))
    assert {".complete", "SOURCES.json", "conditions.json"} <= names
    assert not [name for name in names if ".work" in name or ".tmp" in name]
    assert sum(name.endswith(".wav") for name in names) == 3


def test_an_interrupted_run_goes_on(
    plan: Plan, corpus: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "broken"

    def stop(stage: str, done: float, total: float) -> None:
        if stage == "talks" and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_corpus(plan, out, 1, cache, stop)
    assert not (out / ".complete").exists()
    (out / "WAV" / ".tmp-1-leftover.wav").write_bytes(b"half")
    finished = {path: path.stat().st_mtime_ns for path in out.rglob("*.wav")}
    build_corpus(plan, out, 1, cache, _silent)
    assert _digests(out) == _digests(corpus)
    assert any(path.stat().st_mtime_ns == when for path, when in finished.items() if path.exists())


def test_a_complete_corpus_is_left_alone_and_another_refused(
    plan: Plan, corpus: Path, cache: Path, tmp_path: Path
) -> None:
    before = _digests(corpus)
    assert build_corpus(plan, corpus, 1, cache, _silent) is None
    with pytest.raises(ValueError, match=r"seed 1 \(now 2\)"):
        build_corpus(replace(plan, seed=2), corpus, 1, cache, _silent)
    assert _digests(corpus) == before
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        build_corpus(plan, tmp_path, 1, cache, _silent)


def test_damage_and_sources_are_recorded(corpus: Path) -> None:
    conditions = json.loads((corpus / "conditions.json").read_text())
    told = json.loads((corpus / "SOURCES.json").read_text())
    assert conditions["D03F0058"]["conditions"]["R"]["babble_snr_db"] == 20.0
    assert conditions["A01F0001"]["split"] == "eval2"
    assert conditions["A01F0001"]["speakers"]["L"]["female"]
    assert all({"licence", "attribution"} <= set(entry) for entry in told["sources"].values())
    assert told["sentences"]["A01F0001"]


def test_a_wrong_or_missing_download_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, "", "ERROR: no route to host")

    monkeypatch.setattr(sources.subprocess, "run", no_network)
    with pytest.raises(RuntimeError, match=r"cannot download pitsh==0\.1\.16 .*no route to host"):
        sources.voice_files(tmp_path)
    (tmp_path / sources.PITSH.file).write_bytes(b"not a wheel")
    with pytest.raises(RuntimeError, match="must have SHA-256"):
        sources.voice_files(tmp_path)
