"""Recordings that are sent as a whole."""

import io
import json
import tempfile
import time
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from running import Running, running, until

from dualasr_lib.decoding.captions import FORMATS, render
from dualasr_lib.recognition.recogniser import Recogniser
from dualasr_lib.serving.multipart import file_of_form


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


def form(*parts: tuple[str, bytes], edge: bytes = b"x.-7", end: bytes = b"--\r\n") -> bytes:
    """The body of a form of parts: heads after `form-data`, contents."""
    made = b"".join(
        b"\r\n--" + edge + f"\r\nContent-Disposition: form-data{head}\r\n\r\n".encode() + content
        for head, content in parts
    )
    return made[2:] + b"\r\n--" + edge + end


FORM = {"Content_Type": "multipart/form-data; boundary=x.-7"}
FILE = '; name="file"; filename="talk.wav"\r\nContent-Type: audio/wav'


def test_a_recording_in_a_form_is_heard_as_it_is_alone(server: Running, samples: bytes) -> None:
    body = recording(samples)
    sent = form(('; name="note"', b"--x.-7 no edge"), (FILE, body), (FILE, b"another"))
    for query in ("format=json", "format=srt", "format=vtt&progress=1"):
        status, answer = server.ask(f"/transcribe?{query}", sent, **FORM)
        alone = server.ask(f"/transcribe?{query}", body)
        last = [
            json.loads(a.splitlines()[-1]) if "progress" in query else a for a in (answer, alone[1])
        ]
        assert status == alone[0] == 200 and last[0] == last[1]


@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=4), st.integers(0, 3))
def test_a_form_is_read_as_the_standard_library_reads_it(contents: list[bytes], which: int) -> None:
    which %= len(contents)
    parts = [(FILE if i >= which else '; name="a"', c) for i, c in enumerate(contents)]
    body = b"before\r\n" + form(*parts)
    head = b"Content-Type: multipart/form-data; boundary=x.-7\r\n\r\n"
    known = BytesParser(policy=HTTP).parsebytes(head + body)
    expected = [part.get_payload(decode=True) for part in known.iter_parts()][which]
    with tempfile.TemporaryFile() as file:
        file.write(body)
        file.flush()
        with file_of_form(file, b"x.-7") as made:
            assert made.read() == contents[which] == expected


BAD_FORMS = {
    "no file": (form(('; name="file"', b"RIFF")), "must hold the recording"),
    "no end": (form((FILE, b"RIFF"))[:-12], "cut off"),
    "another boundary": (form((FILE, b"RIFF"), edge=b"y"), "must hold the recording"),
    "many parts": (form(*[('; name="a"', b"")] * 20, (FILE, b"RIFF")), "must hold the recording"),
    "a head without end": (b"--x.-7\r\nfilename=" + b"a" * 9000, "must hold the recording"),
    "an empty file": (form((FILE, b"")), "empty"),
}


@pytest.mark.parametrize("name", BAD_FORMS)
def test_what_is_no_form_with_a_file_is_told(server: Running, name: str) -> None:
    body, part = BAD_FORMS[name]
    status, answer = server.ask("/transcribe", body, **FORM)
    assert status == 400 and part in json.loads(answer)["message"]
    status, answer = server.ask("/transcribe", body, Content_Type="multipart/form-data")
    assert status == 400 and "boundary" in json.loads(answer)["message"]


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
