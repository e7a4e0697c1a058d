"""`Recogniser`: three lines from a file to a text, whatever the audio looks like; and each bundle
that cannot be used is refused by name.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("sentencepiece")
pytest.importorskip("soxr")

import soundfile
from random_model import Home, trained_model, write_home

from dualasr_lib.core.container import Container, ContainerError, read_container, write_container
from dualasr_lib.decoding.captions import Transcript
from dualasr_lib.decoding.events import Final, Partial
from dualasr_lib.recognition.bundle import Bundle, read_bundle, write_bundle
from dualasr_lib.recognition.bundling import BundleJob, make_bundle
from dualasr_lib.recognition.decode_config import DecodeConfig
from dualasr_lib.recognition.recogniser import Recogniser

RATE = 16000
_TONES = np.repeat(np.random.default_rng(7).uniform(100, 6000, 30), RATE // 10)
SAMPLES = (0.2 * np.sin(2 * np.pi * np.cumsum(_TONES) / RATE)).astype(np.float32)
ENDPOINT = ("long_seconds=0.4", "breath_seconds=0.04", "pause_seconds=0.08", "max_seconds=0.9")
Change = Callable[[Bundle], Bundle]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return write_home(tmp_path_factory.mktemp("home"), trained_model())


@pytest.fixture(scope="module")
def path(home: Home) -> Path:
    bundle = make_bundle(BundleJob(exp_dir=home.exp, data_dir=home.data, endpoint=ENDPOINT))
    write_bundle(bundle, home.exp / "x.dualasr")
    return home.exp / "x.dualasr"


@pytest.fixture(scope="module")
def recogniser(path: Path) -> Recogniser:
    return Recogniser.load(path, method="greedy", device="cpu")


def said(transcript: Transcript) -> list[tuple[Any, ...]]:
    """All but the clock."""
    return [final._replace(finalise_seconds=0.0) for final in transcript.segments]


def test_three_lines(path: Path) -> None:
    recogniser = Recogniser.load(path)
    transcript = recogniser.transcribe(SAMPLES, RATE)
    stream = recogniser.stream(RATE)
    assert len(transcript.segments) > 1 and transcript.duration == 3.0
    assert transcript.text == "\n".join(final.text for final in transcript.segments if final.text)
    assert {final.second_pass for final in transcript.segments} >= {"done"}
    for final in transcript.segments:
        assert final.text == "".join(token.text for token in final.tokens)
        for token in final.tokens:
            assert final.start_seconds <= token.seconds < final.end_seconds
    events = [*stream.feed(SAMPLES), *stream.finish()]
    finals = [event for event in events if isinstance(event, Final)]
    assert said(Transcript("", 3.0, finals)) == said(transcript)
    assert any(isinstance(event, Partial) for event in events)


def test_a_bundle_hears_what_its_experiment_hears(
    recogniser: Recogniser, home: Home, path: Path
) -> None:
    """Its endpoints are its own, and may be overridden."""
    exp = Recogniser.load(
        home.exp, data_dir=home.data, method="greedy", endpoint=ENDPOINT, device="cpu"
    )
    expected = said(exp.transcribe(SAMPLES, RATE))
    assert said(recogniser.transcribe(SAMPLES, RATE)) == expected
    assert len({final.text for final in exp.transcribe(SAMPLES, RATE).segments}) > 1
    usual = Recogniser.load(path, method="greedy", endpoint=("max_seconds=2.2",), device="cpu")
    assert usual.rules.config.endpoint.max_seconds == 2.2
    assert usual.rules.config.endpoint.pause_seconds == 0.08


def test_samples_of_any_kind(recogniser: Recogniser) -> None:
    """16 bits, float64, torch, channels: the text is that of float32."""
    short = (SAMPLES * 32768).round().astype(np.int16)
    as_float = short.astype(np.float32) / 32768
    expected = said(recogniser.transcribe(as_float, RATE))
    for audio in (
        short, torch.from_numpy(short), torch.from_numpy(as_float), as_float.astype(np.float64),
        np.stack([as_float, as_float]), np.stack([short] * 3),
    ):  # fmt: skip
        assert said(recogniser.transcribe(audio, RATE)) == expected


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_any_rate_from_a_file_an_array_or_blocks(
    recogniser: Recogniser, rate: int, tmp_path: Path
) -> None:
    stereo = np.stack([SAMPLES, SAMPLES[::-1]])
    soundfile.write(tmp_path / "a.wav", stereo.T, rate, "FLOAT")
    from_file = recogniser.transcribe(tmp_path / "a.wav")
    assert from_file.source == str(tmp_path / "a.wav") and len(from_file.segments) > 1
    assert from_file.duration == pytest.approx(len(SAMPLES) / rate)
    assert from_file.segments[-1].end_seconds == pytest.approx(from_file.duration, abs=0.001)
    assert said(recogniser.transcribe(str(tmp_path / "a.wav"))) == said(from_file)
    assert said(recogniser.transcribe(stereo, rate)) == said(from_file)
    stream = recogniser.stream(rate)
    events = [event for start in range(0, len(SAMPLES), 777)
              for event in stream.feed(stereo[:, start : start + 777])]  # fmt: skip
    events += stream.finish()
    finals = [event for event in events if isinstance(event, Final)]
    assert [final.text for final in finals] == [final.text for final in from_file.segments]


def test_nothing_to_hear(recogniser: Recogniser) -> None:
    assert recogniser.transcribe(SAMPLES[:0], RATE) == Transcript("", 0.0, [])
    assert recogniser.transcribe(SAMPLES[:0], RATE).text == ""
    stream = recogniser.stream()
    assert (stream.feed(SAMPLES[:0]), stream.finish(), stream.finish()) == ((), (), ())


@pytest.mark.parametrize(
    ("audio", "rate", "message"),
    [
        (SAMPLES, None, r"samples need their rate: transcribe\(samples, 16000\)"),
        (SAMPLES, 16, "a sample rate must be a whole number of Hz from 1000 .* but is 16"),
        (SAMPLES, 16000.5, "whole number of Hz"),
        (SAMPLES, "16k", "whole number of Hz from 1000 .* but is '16k'"),
        (SAMPLES, float("nan"), "whole number of Hz .* but is nan"),
        (SAMPLES, float("inf"), "whole number of Hz .* but is inf"),
        ("a.wav", RATE, "`rate` is for samples: a file says its own"),
        ("nothing.wav", None, r"nothing\.wav: there is no such file"),
        (SAMPLES.reshape(-1, 2), RATE, r"\(channels, samples\) .* is \(24000, 2\): transpose it"),
        (SAMPLES.reshape(2, 2, -1), RATE, r"is \(2, 2, 12000\)"),
        (SAMPLES.tobytes(), RATE, "is bytes: numpy.frombuffer"),
        (list(SAMPLES[:9]), RATE, "is list: numpy.asarray"),
        (SAMPLES * 32768, RATE, "divide samples of 16 bits by 32768"),
        (np.where(np.arange(8000) == 4000, np.nan, 0.0), 8000, r"NaN or infinity at 0\.500 s"),
    ],
)
def test_audio_that_cannot_be(recogniser: Recogniser, audio: Any, rate: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recogniser.transcribe(audio, rate)


@pytest.mark.parametrize("turned", [True, False])
def test_channels_that_cancel_are_told_once(
    recogniser: Recogniser, turned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    channels = np.stack([SAMPLES, -SAMPLES if turned else SAMPLES])
    recogniser.transcribe(channels, RATE)
    stream = recogniser.stream(RATE)
    for start in range(0, 12000, 4000):
        stream.feed(channels[:, start : start + 4000])
    told = [r for r in caplog.records if "channels cancel each other" in r.getMessage()]
    assert len(told) == 2 * turned


def test_a_bad_block_leaves_the_stream_as_it_was(recogniser: Recogniser) -> None:
    stream = recogniser.stream(8000)
    events = list(stream.feed(SAMPLES[:8000]))
    with pytest.raises(ValueError, match=r"NaN or infinity at 1\.000 s"):
        stream.feed(np.full(10, np.nan))
    events += [*stream.feed(SAMPLES[8000:]), *stream.finish()]
    finals = [event for event in events if isinstance(event, Final)]
    assert said(Transcript("", 0, finals)) == said(recogniser.transcribe(SAMPLES, 8000))
    with pytest.raises(ValueError, match="takes no more audio"):
        stream.feed(SAMPLES)


def changed(**fields: Any) -> Change:
    return lambda bundle: replace(bundle, **fields)


def cut(bundle: Bundle) -> Bundle:
    return replace(bundle, weights=dict(list(bundle.weights.items())[1:]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(config={"modle": {}}), "does not fit this version .* did you mean 'model'"),
        (changed(tokens="<blk> 0\n"), "its tokens are not those of its sentencepiece model"),
        (changed(tokenizer=b"no model"), "does not fit this version"),
        (changed(units=[]), "does not fit this version"),
        (changed(units=["syllable"]), "does not fit this version"),
        (cut, "does not fit this version .*Missing key"),
        (changed(config={}), "does not fit this version .*num_epochs"),
    ],
)
def test_a_bundle_that_does_not_fit(
    path: Path, tmp_path: Path, change: Change, message: str
) -> None:
    write_bundle(change(read_bundle(path)), tmp_path / "y.dualasr")
    with pytest.raises(ValueError, match=message) as error:
        Recogniser.load(tmp_path / "y.dualasr")
    assert str(error.value).startswith(str(tmp_path / "y.dualasr"))
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_bundle(path: Path, home: Home, tmp_path: Path) -> None:
    """Missing, foreign, damaged, newer: each is named, in one line."""
    whole = bytearray(path.read_bytes())
    whole[-5] ^= 1
    (tmp_path / "damaged.dualasr").write_bytes(whole)
    (tmp_path / "foreign.dualasr").write_bytes((home.exp / "epoch-1.pt").read_bytes())
    newer = bytearray(path.read_bytes())
    newer[8] = 9
    digest = hashlib.sha256(newer[:32] + newer[64:]).digest()
    (tmp_path / "newer.dualasr").write_bytes(newer[:32] + digest + newer[64:])
    for name, message in (
        ("missing", "does not exist"),
        ("damaged", "is damaged: its content does not fit its checksum"),
        ("foreign", "looks like a torch checkpoint"),
        ("newer", "has format 9, but .* install a newer dualasr"),
    ):
        with pytest.raises(ContainerError, match=rf"^{tmp_path}/{name}\.dualasr .*{message}"):
            Recogniser.load(tmp_path / f"{name}.dualasr")


@pytest.mark.parametrize("name", ["lm/../../evil.arpa", "lm/", "lexicon/..", "/tmp/x", "other"])
def test_a_name_that_leads_out_of_its_folder_is_refused(
    path: Path, tmp_path: Path, name: str
) -> None:
    whole = read_container(path)
    forged = Container(whole.plain, whole.tensors, {**whole.files, name: b""})
    write_container(tmp_path / "y.dualasr", forged)
    with pytest.raises(ContainerError, match="holds a file of the unknown name"):
        Recogniser.load(tmp_path / "y.dualasr")


def test_folders_and_files_are_told_apart(home: Home, path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder: give its data_dir"):
        Recogniser.load(home.exp)
    with pytest.raises(ValueError, match="is a bundle: it needs no data_dir"):
        Recogniser.load(path, data_dir=home.data)


@pytest.mark.parametrize(
    ("options", "two_pass", "outcome"),
    [
        ({}, None, "done"),
        ({}, False, "none"),
        ({"branches": ("streaming",)}, None, "none"),
        ({"integration": "parallel"}, None, "none"),
        ({"branches": ("streaming",)}, True, "needs a model with both branches"),
        ({"integration": "parallel"}, True, "both branches and model.integration"),
        ({"branches": ("full",)}, None, "needs a model with a streaming branch"),
    ],
)
def test_the_second_pass_is_there_if_the_model_has_one(
    options: dict[str, Any], two_pass: bool | None, outcome: str, tmp_path: Path
) -> None:
    home = write_home(tmp_path, trained_model(**options))
    job = BundleJob(exp_dir=home.exp, data_dir=home.data)
    write_bundle(make_bundle(job), tmp_path / "x.dualasr")

    def load() -> Recogniser:
        return Recogniser.load(
            tmp_path / "x.dualasr", method="greedy", two_pass=two_pass, device="cpu"
        )

    if outcome not in ("done", "none"):
        with pytest.raises(ValueError, match=outcome):
            load()
        return
    segments: Sequence[Final] = load().transcribe(SAMPLES, RATE).segments
    assert {final.second_pass for final in segments} == {outcome}


def test_build_does_just_what_the_configuration_says(path: Path) -> None:
    plain = DecodeConfig(bundle=path, methods=("greedy",), streams=True, device="cpu")
    assert Recogniser.build(plain).rules.second_pass is None
    pytest.importorskip("k2")
    with pytest.raises(ValueError, match=r"the bundle holds none .* give --scales"):
        Recogniser.build(replace(plain, two_pass=True))
    given = replace(plain, two_pass=True, second_scales={"attention": 0.5})
    assert "two-pass: {'attention': 0.5} (given)" in Recogniser.build(given).weights
