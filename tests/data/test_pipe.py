"""Audio through pipes: standard input, named pipes, process substitution; while it is recorded."""

import contextlib
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("soundfile")

import soundfile

from dualasr_lib.data.audio import AudioFile, open_audio
from dualasr_lib.data.pipe import ForwardFile, is_pipe

ROOT = Path(__file__).resolve().parents[2]


def noise(size: int, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(-0.5, 0.5, (size, channels)).astype(np.float32)


def through(content: bytes, directory: Path) -> Path:
    """A named pipe into which somebody writes."""
    path = directory / "pipe"
    os.mkfifo(path)

    def write() -> None:
        with open(path, "wb") as pipe, contextlib.suppress(BrokenPipeError):
            pipe.write(content)

    threading.Thread(target=write, daemon=True).start()
    return path


def joined(audio: AudioFile) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(list(audio.blocks(5120))))


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff", "a.au", "a.rf64"])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_the_samples_are_those_of_the_file(tmp_path: Path, name: str, rate: int) -> None:
    file = tmp_path / name
    soundfile.write(file, noise(50_000, 2), rate)
    audio = open_audio(through(file.read_bytes(), tmp_path))
    expected = open_audio(file)
    assert audio.num_frames == expected.num_frames
    assert torch.equal(joined(audio), joined(expected))


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFF0000])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_wav_file_that_does_not_know_its_length(tmp_path: Path, size: int, channels: int) -> None:
    """As ffmpeg, sox and arecord write it."""
    file = tmp_path / "a.wav"
    soundfile.write(file, noise(30_000, channels), 16000, subtype="PCM_16")
    content = bytearray(file.read_bytes())
    expected = joined(open_audio(file))
    content[4:8] = content[40:44] = struct.pack("<I", size)
    audio = open_audio(through(bytes(content), tmp_path))
    assert (audio.num_frames, audio.duration) == (None, None)
    assert torch.equal(joined(audio), expected)


def test_chunks_before_and_behind_the_samples(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    soundfile.write(file, noise(3000), 16000, subtype="PCM_16")
    content = file.read_bytes()
    extra = b"LIST" + struct.pack("<I", 5) + b"INFOx\0"
    for both in (content[:36] + extra + content[36:] + extra, content + extra):
        path = through(both, tmp_path)
        assert torch.equal(joined(open_audio(path)), joined(open_audio(file)))
        path.unlink()


def test_what_is_said_is_read_before_the_end(tmp_path: Path) -> None:
    """The writer waits until its first half second has been read."""
    file, path, was_read = tmp_path / "a.wav", tmp_path / "pipe", threading.Event()
    soundfile.write(file, noise(16_000), 16000, subtype="PCM_16")
    content = file.read_bytes()
    os.mkfifo(path)

    def speak() -> None:
        with open(path, "wb", buffering=0) as pipe:
            pipe.write(content[: 44 + 16_000])
            assert was_read.wait(20)
            pipe.write(content[44 + 16_000 :])

    writer = threading.Thread(target=speak)
    writer.start()
    blocks = open_audio(path).blocks(1600)
    first = [next(blocks) for _ in range(4)]
    was_read.set()
    rest = torch.from_numpy(np.concatenate([*first, *blocks]))
    assert torch.equal(rest, joined(open_audio(file)))
    writer.join()


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    soundfile.write(file, noise(3000), 16000)
    audio = open_audio(through(file.read_bytes(), tmp_path))
    joined(audio)
    with pytest.raises(ValueError, match="pipe: a pipe can be read once only"):
        joined(audio)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_pipe_that_breaks_off(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    soundfile.write(file, noise(48_000), 16000)
    content = file.read_bytes()[: file.stat().st_size // 2]
    with pytest.raises(ValueError, match="pipe: ") as error:
        joined(open_audio(through(content, tmp_path)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"no audio" * 999, "must be audio"), (b"RIFF", "must be audio"),
     (b"RIFF\0\0\0\0WAVE" + b"junk\xff\xff\xff\x0f" * 200, "must be audio")],
)  # fmt: skip
def test_a_pipe_without_audio(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        open_audio(through(content, tmp_path))
    assert str(error.value).startswith(str(tmp_path / "pipe"))
    assert "\n" not in str(error.value)


def test_devices_are_refused() -> None:
    for device in ("/dev/null", "/dev/zero"):
        with pytest.raises(ValueError, match=f"{device}: must be an audio file or a pipe"):
            open_audio(device)


_READ = """
import sys
from dualasr_lib.data.audio import open_audio
for audio in map(open_audio, sys.argv[1:]):
    print(audio.path, sum(map(len, audio.blocks(1000))))
"""


@pytest.mark.parametrize(
    ("shell", "names"),
    [
        ("cat {wav} | {read} -", ["standard input"]),
        ("cat {flac} | {read} /dev/stdin {wav}", ["/dev/stdin", "a.wav"]),
        ("{read} - < {wav}", ["standard input"]),
        (
            "{read} <(cat {wav}) <(cat {flac}) /dev/stdin < {flac}",
            ["/dev/fd/"] * 2 + ["/dev/stdin"],
        ),
    ],
)
def test_shells(tmp_path: Path, shell: str, names: list[str]) -> None:
    wav, flac, program = (tmp_path / name for name in ("a.wav", "a.flac", "read.py"))
    for file in (wav, flac):
        soundfile.write(file, noise(7777), 16000)
    program.write_text(_READ)
    command = shell.format(wav=wav, flac=flac, read=f"{sys.executable} {program}")
    outcome = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (outcome.returncode, outcome.stderr) == (0, "")
    lines = outcome.stdout.splitlines()
    assert all(name in line for name, line in zip(names, lines, strict=True))
    assert [line.split()[-1] for line in lines] == ["7777"] * len(names)


def test_a_closed_standard_input_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ValueError, match="standard input is closed"):
        open_audio("-")


def test_a_terminal_is_no_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = os.openpty()
    with os.fdopen(slave) as terminal, os.fdopen(master):
        monkeypatch.setattr(sys, "stdin", terminal)
        with pytest.raises(ValueError, match="is a terminal: pipe audio into it"):
            is_pipe(Path("-"))


@pytest.fixture
def trickle() -> Iterator[Callable[[bytes], ForwardFile]]:
    """A source that gives a few bytes at a time."""
    ends: list[int] = []

    def make(content: bytes) -> ForwardFile:
        reader, writer = os.pipe()
        os.write(writer, content)
        os.close(writer)
        ends.append(reader)
        return ForwardFile(open(reader, "rb", buffering=0, closefd=False))

    yield make
    for end in ends:
        os.close(end)


def test_steps_back_while_it_is_looked_at(trickle: Callable[[bytes], ForwardFile]) -> None:
    file = trickle(bytes(range(100)))
    assert file.read(10) == bytes(range(10))
    assert file.seek(5) == 5
    assert file.read(10) == bytes(range(5, 15))
    file.seek(0, os.SEEK_END)
    file.seek(0)
    file.go_on()
    assert file.read(20) == bytes(range(20))
    assert file.tell() == 20
    assert file.read(200) == bytes(range(20, 100))
    assert file.read(1) == b""
    file.seek(3)
    with pytest.raises(OSError, match="cannot be read again"):
        file.read(1)
