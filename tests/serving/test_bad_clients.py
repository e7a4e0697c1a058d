"""Clients that are wrong, rude or gone: each is told, or dropped, and nobody else notices."""

import asyncio
import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest
from running import Running, received, until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from dualasr_lib.serving.client import Spoken, speak

START = '{"type":"start","sample_rate":16000}'
SECOND = b"\x00\x01" * 16000


def told(server: Running, *messages: str | bytes) -> tuple[int | None, str]:
    """Close code of the server, and its last message, if a client just says these."""
    with connect(server.live, compression=None) as client:
        with contextlib.suppress(ConnectionClosed):
            for message in messages:
                client.send(message)
        texts = received(client)
        return client.close_code, texts[-1] if texts else ""


_DEEP = '{"type":' + "[" * 400 + "]" * 400 + "}"
BAD: dict[str, tuple[tuple[str | bytes, ...], int]] = {
    "audio before start": ((SECOND,), 4400),
    "no JSON": (("hello",), 4400),
    "empty text": (("",), 4400),
    "a list": (("[1]",), 4400),
    "a number": (("1",), 4400),
    "null": (("null",), 4400),
    "deep JSON": ((_DEEP,), 4400),
    "very deep JSON": (("[" * 20000,), 4400),
    "a long text": ((START[:-1] + " " * 2000 + "}",), 4400),
    "no type": (('{"sample_rate":16000}',), 4400),
    "stop first": (('{"type":"stop"}',), 4400),
    "no rate": (('{"type":"start"}',), 4400),
    "rate as text": (('{"type":"start","sample_rate":"16000"}',), 4400),
    "rate as float": (('{"type":"start","sample_rate":16000.5}',), 4400),
    "rate as bool": (('{"type":"start","sample_rate":true}',), 4400),
    "rate NaN": (('{"type":"start","sample_rate":NaN}',), 4400),
    "rate 1": (('{"type":"start","sample_rate":1}',), 4400),
    "rate huge": (('{"type":"start","sample_rate":' + "9" * 500 + "}",), 4400),
    "rate negative": (('{"type":"start","sample_rate":-16000}',), 4400),
    "a model's name": (('{"type":"start","sample_rate":16000,"model":"/etc/passwd"}',), 4400),
    "second start": ((START, START), 4400),
    "unknown type": ((START, '{"type":"reset"}'), 4400),
    "type is a list": ((START, '{"type":["stop"]}'), 4400),
    "text for audio": ((START, "AAAA"), 4400),
    "odd bytes": ((START, b"\0" * 3201), 4400),
    "no bytes": ((START, b""), 4400),
    "audio after stop": ((START, SECOND[:3200], '{"type":"stop"}', SECOND), 4400),
    "too big": ((START, b"\0" * 65538), 1009),
    "a flood": ((START, *[SECOND] * 400), 4429),
    "no start": ((), 4408),
    "no audio": ((START,), 4408),
    "bytes that are no UTF-8 text": ((START, b"\xff\xff\xff"), 4400),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_message_is_told(server: Running, name: str) -> None:
    messages, close = BAD[name]
    code, last = told(server, *messages)
    # who still sends when the server closes may lose the close to a reset: 1006
    assert code in ((close, 1006) if name == "a flood" else (close,)), (code, last)
    if close >= 4000 and code != 1006:
        error = json.loads(last)
        assert error["type"] == "error" and error["code"] and error["message"]
        assert "/etc" not in last


def raw(server: Running, text: bytes, seconds: float = 20) -> bytes:
    """What comes back to bytes, until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), seconds) as made:
        made.sendall(text)
        got = b""
        try:
            while part := made.recv(65536):
                got += part
        except ConnectionResetError:
            pass
        return got


UPGRADE = (
    b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
RAW: dict[str, tuple[bytes, bytes]] = {
    "silence": (b"", b""),
    "half a header": (b"GET / HTTP/1.1\r\nHost: 127", b""),
    "garbage": (bytes(range(256)) * 8, b"400"),
    "a header without end": (b"GET / HTTP/1.1\r\nX: " + b"a" * 70000, b"400"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b""),
    "no key": (UPGRADE.replace(b"Sec-WebSocket-Key", b"X-Key"), b"400"),
    "an old version": (UPGRADE.replace(b"13", b"8"), b"400"),
    "no host": (UPGRADE.replace(b"Host: 127.0.0.1\r\n", b""), b"400"),
    "a frame without mask": (UPGRADE + b"", b"101"),
}


@pytest.mark.parametrize("name", RAW)
def test_bytes_that_are_no_request_end(server: Running, name: str) -> None:
    text, expected = RAW[name]
    assert expected in raw(server, text)[:300]


def test_frames_that_break_the_protocol_end(server: Running) -> None:
    for frame in (
        b"\x82\x02ab",
        b"\xf2\x80abcd",
        b"\x83\x80abcd",
        b"\x89\xfe\x04\x00" + b"a" * 1028,
    ):
        with socket.create_connection(("127.0.0.1", server.port), 20) as made:
            made.sendall(UPGRADE)
            assert b"101" in made.recv(4096)
            made.sendall(frame)
            got = b""
            while part := made.recv(65536):
                got += part
            assert b"\x03\xea" in got, frame  # 1002: protocol error


def refusal(server: Running, **options: Any) -> int:
    try:
        with connect(server.live, **options):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


def test_strangers_are_refused_before_the_upgrade(server: Running) -> None:
    here = f"http://127.0.0.1:{server.port}"
    assert refusal(server, origin=here) == 101
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", f"{here}.evil.example"):
        assert refusal(server, origin=origin) == 403, origin
        assert server.ask("/transcribe", b"x", Origin=origin)[0] == 403
    assert refusal(server, subprotocols=["asr.v0"]) == 400
    assert server.ask("/", Host="evil.example")[0] == 403
    assert server.ask("/live")[0] == 426


def test_an_address_has_so_many_places(server: Running) -> None:
    clients: list[ClientConnection] = []
    assert until(lambda: server.metric("dualasr_streams_open") == 0)
    try:
        clients += [connect(server.live, legacy=True) for _ in range(6)]
        assert refusal(server) == 503
    finally:
        for client in clients:
            client.close()
    assert until(lambda: refusal(server) == 101)


def abort(server: Running, samples: bytes) -> None:
    """Gone in mid-sentence, without a word."""
    client = connect(server.live, compression=None)
    client.send(START)
    client.recv(20)
    client.send(samples[:30000])
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.socket.close()


def deaf(server: Running, samples: bytes) -> None:
    """Sends, reads nothing, with a receive buffer of a few bytes."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    made.connect(("127.0.0.1", server.port))
    made.sendall(UPGRADE)

    def frame(opcode: int, data: bytes) -> bytes:
        return struct.pack(">BBH", 0x80 | opcode, 0x80 | 126, len(data)) + b"\0\0\0\0" + data

    made.sendall(frame(1, START.encode()))
    try:
        for _ in range(3000):
            made.sendall(frame(1, b'{"type":"ping"}'))
            made.sendall(frame(2, samples[:320]))
    except OSError:
        return
    finally:
        made.close()


def test_others_hear_nothing_of_it_and_nothing_is_left(server: Running, samples: bytes) -> None:
    """Healthy streams beside aborts, floods and a deaf one have the texts that they have alone."""
    assert until(lambda: server.metric("dualasr_streams_open") == 0)
    alone = asyncio.run(speak(server.live, samples, 16000, speed=2.0)).finals
    assert alone and until(lambda: server.metric("dualasr_streams_open") == 0)
    sockets = server.sockets
    rude: list[Callable[[], object]] = [
        *[lambda: abort(server, samples)] * 8,
        lambda: deaf(server, samples),
        *[
            lambda name=name: told(server, *BAD[name][0])
            for name in ("a flood", "too big", "no JSON")
        ],
    ]

    async def together() -> list[Spoken]:
        healthy = [
            asyncio.create_task(speak(server.live, samples, 16000, speed=1.0)) for _ in range(2)
        ]
        for step in rude:
            await asyncio.to_thread(step)
        return list(await asyncio.gather(*healthy))

    for spoken in asyncio.run(together()):
        assert spoken.close == 1000 and spoken.finals == alone
    assert until(lambda: server.metric("dualasr_streams_open") == 0, 30)
    assert until(lambda: server.sockets <= sockets, 30), (server.sockets, sockets)
    assert os.path.exists(f"/proc/{server.decoder}") and server.health()["status"] == "ok"
    assert until(lambda: server.health()["decoding"] == 0)  # streams that the decoder holds


def test_silent_connections_are_closed(server: Running) -> None:
    before = server.sockets
    made = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    try:
        assert until(lambda: server.sockets >= before + 20)
        begun = time.monotonic()
        assert until(lambda: server.sockets <= before, 30)
        assert time.monotonic() - begun > 1
    finally:
        for one in made:
            one.close()
