"""Recordings that are sent as a whole."""

import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from running import Running, running, until

from dualasr_lib.decoding.captions import FORMATS, render
from dualasr_lib.recognition.recogniser import Recogniser


def recording(samples: bytes, kind: str = "WAV", rate: int = 16000) -> bytes:
    made = io.BytesIO()
    soundfile.write(made, np.frombuffer(samples, "<i2"), rate, format=kind)
    return made.getvalue()


def test_every_format_is_what_the_program_writes(
    server: Running, bundle: Path, samples: bytes, tmp_path: Path
) -> None:
    for kind in ("WAV", "FLAC"):
        body = recording(samples, kind, 22050)
        path = tmp_path / f"x.{kind.lower()}"
        path.write_bytes(body)
        made = Recogniser.load(bundle, device="cpu").transcribe(path)._replace(source="")
        assert made.text
        for name in FORMATS:
            status, answer = server.ask(f"/transcribe?format={name}", body)
            assert (status, answer.decode()) == (200, render(made, name))


def test_progress_is_told_as_it_is_heard(server: Running, samples: bytes) -> None:
    body = recording(samples * 3)
    status, answer = server.ask("/transcribe?format=srt&progress=1", body)
    lines = [json.loads(line) for line in answer.splitlines()]
    seconds = [line["seconds"] for line in lines if line["type"] == "progress"]
    assert status == 200 and seconds == sorted(seconds) and len(set(seconds)) > 10
    assert seconds[-1] == 12.0 and lines[0]["of"] == 12.0
    assert lines[-1]["content"].encode() == server.ask("/transcribe?format=srt", body)[1]
    texts = [final["text"] for line in lines[:-1] for final in line["finals"]]
    assert any(texts)


def _cut(samples: bytes) -> bytes:
    return recording(samples)[:-1000]


BAD = {
    "empty": (lambda samples: b"", 400, "empty"),
    "text": (lambda samples: b"hello" * 100, 422, "must be audio"),
    "cut": (_cut, 422, "the recording"),
    "a path": (lambda samples: b"/etc/passwd", 422, "must be audio"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("query", ["", "?progress=1"])
def test_what_is_no_recording_is_told(
    server: Running, samples: bytes, name: str, query: str
) -> None:
    make, expected, part = BAD[name]
    status, answer = server.ask(f"/transcribe{query}", make(samples))
    last = json.loads(answer.splitlines()[-1])
    if not query or expected == 400:
        assert status == expected
    assert last["type"] == "error" and part in last["message"]
    assert "/dev/" not in last["message"] and "Traceback" not in last["message"]


def test_an_unknown_format_is_told(server: Running) -> None:
    status, answer = server.ask("/transcribe?format=../../etc", b"x")
    assert status == 400 and b"text, json, srt, vtt" in answer


def test_bounds_of_recordings(bundle: Path, samples: bytes) -> None:
    limits = ("upload_bytes=100000", "upload_seconds=2", "reader_bytes=300000000")
    options = [part for limit in limits for part in ("--limit", limit)]
    with running(bundle, *options) as server:
        assert server.ask("/transcribe", recording(samples))[0] == 413
        chunked = iter([b"x" * 60000, b"x" * 60000])
        import http.client

        client = http.client.HTTPConnection("127.0.0.1", server.port)
        client.request("POST", "/transcribe", chunked, encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})  # fmt: skip
        assert client.getresponse().status == 413
        client.close()
        status, answer = server.ask("/transcribe", recording(samples[:80000]))
        assert status == 422 and b"may have 2 s" in answer
        assert server.ask("/transcribe", recording(samples[:60000]))[0] == 200
        assert until(lambda: server.metric("dualasr_uploads_open") == 0)


def test_whoever_leaves_ends_it(server: Running, samples: bytes) -> None:
    import socket

    body = recording(samples * 100)
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        head = (
            f"POST /transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        client.sendall(head.encode() + body)
        assert until(lambda: server.metric("dualasr_uploads_open") == 1)
    begun = time.monotonic()
    assert until(lambda: server.metric("dualasr_uploads_open") == 0)
    assert time.monotonic() - begun < 20
