"""`dualasr-transcribe` on a tiny trained model: every format, two passes, bad files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_training import ENVIRONMENT, ROOT

for library in ("lhotse", "_kaldifeat", "k2", "kaldingram", "sentencepiece", "soxr"):
    pytest.importorskip(library)


def transcribe(data: Path, exp: Path, *others: object) -> subprocess.CompletedProcess[str]:
    arguments = ["--exp-dir", exp, "--data-dir", data, "--device", "cpu", *others]
    return started("transcribe", *arguments)


def started(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"dualasr_lib.programs.{program}", *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


@pytest.fixture(scope="module")
def talk(tiny_csj: Path) -> Path:
    return sorted((tiny_csj / "WAV" / "core").glob("*.wav"))[0]


def test_formats_into_a_folder(data: Path, trained: Path, talk: Path, tmp_path: Path) -> None:
    outcome = transcribe(data, trained, talk, "--format", "json", "--out-dir", tmp_path / "out")
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout == ""
    assert "RTF" in outcome.stderr
    document = json.loads((tmp_path / "out" / f"{talk.stem}.json").read_text(encoding="utf-8"))
    assert document["file"] == str(talk)
    for segment in document["segments"]:
        assert segment["text"] == "".join(token["text"] for token in segment["tokens"])
        assert 0 <= segment["start"] < segment["end"] <= document["duration"] + 0.001


def test_a_bundle_in_place_of_folders(
    data: Path, trained: Path, talk: Path, tmp_path: Path
) -> None:
    """Made by one console script, used by the other, of which only the clock differs."""
    path = tmp_path / "x.dualasr"
    made = started("bundle", trained, "--data-dir", data, "--out", path, "--licence", "CC0-1.0")
    assert made.returncode == 0 and "CC0-1.0" in made.stdout, made.stderr
    options = (talk, "--method", "greedy", "--format", "json")
    outcome = started("transcribe", "--bundle", path, "--device", "cpu", *options)
    assert outcome.returncode == 0, outcome.stderr
    assert json.loads(outcome.stdout) == json.loads(transcribe(data, trained, *options).stdout)
    path.write_bytes(path.read_bytes()[:-1])
    outcome = started("transcribe", "--bundle", path, *options)
    assert (outcome.returncode, outcome.stdout) == (1, "")
    (line,) = outcome.stderr.splitlines()
    assert f"error: {path} is damaged" in line


def test_two_passes(data: Path, trained: Path, talk: Path) -> None:
    options = ["--two-pass", "--second-scales", "attention=0.5", "--second-beam", "num_texts=5"]
    outcome = transcribe(data, trained, talk, *options, "--format", "vtt")
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.startswith("WEBVTT\n\n")


def test_bad_files_and_bad_options(data: Path, trained: Path, talk: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")
    outcome = transcribe(data, trained, bad, talk, "--method", "greedy", "--out-dir", tmp_path)
    assert outcome.returncode == 1
    assert f"error: {bad}: must be audio" in outcome.stderr
    assert (tmp_path / f"{talk.stem}.txt").is_file()
    assert not (tmp_path / "bad.txt").exists()
    for option, message in (
        (("--endpoint", "pause_seconds=0"), "pause_seconds"),
        (("--endpoint", "paus_seconds=1"), "did you mean 'pause_seconds'"),
        (("--chunk-ms", "330"), "multiple of 20 ms"),
        (("--exp-dir", str(tmp_path)), str(tmp_path)),
    ):
        outcome = transcribe(data, trained, talk, *option)
        assert (outcome.returncode, outcome.stdout) == (1, "")
        assert message in outcome.stderr
        assert len(outcome.stderr.splitlines()) == 1
