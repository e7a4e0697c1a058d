"""A server with a token and a name."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from running import Running, running
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from dualasr_lib.serving.access import Access

TOKEN = "correct-horse.7"


@pytest.fixture(scope="module")
def secret(bundle: Path) -> Iterator[Running]:
    with running(bundle, "--allow-host", "asr.example.org", token=TOKEN) as made:
        yield made


@pytest.mark.parametrize("given", [None, "", TOKEN[:-1], TOKEN + "7", "x" * 100, "ü" * 15])
def test_a_wrong_token_is_refused(secret: Running, given: str | None) -> None:
    names = {} if given is None else {"Authorization": f"Bearer {given}"}
    with pytest.raises(InvalidStatus, match="401"), connect(secret.live, additional_headers=names):
        pass
    if given is None or given.isascii():
        assert secret.ask("/metrics", **names)[0] == 401
        assert secret.ask("/transcribe", b"x", **names)[0] == 401


def test_the_token_is_taken_from_header_and_subprotocol(secret: Running) -> None:
    names = {"Authorization": f"Bearer {TOKEN}"}
    with connect(secret.live, additional_headers=names) as client:
        assert client.subprotocol is None
    protocols = ["asr.v1", f"bearer.{TOKEN}"]
    with connect(secret.live, subprotocols=protocols) as client:  # type: ignore[arg-type]
        assert client.subprotocol == "asr.v1"  # the token is not sent back
    assert secret.ask("/metrics", **names)[0] == 200
    assert secret.ask("/")[0] == 200 and secret.ask("/health")[0] == 200
    assert TOKEN not in "".join(secret.lines)


def test_names_of_the_server(secret: Running) -> None:
    assert secret.ask("/", Host="asr.example.org")[0] == 200
    assert secret.ask("/", Host="asr.example.org:443")[0] == 200
    assert secret.ask("/", Host="evil.example.org")[0] == 403


@pytest.mark.parametrize("token", ["short", "with blank in it", 'with"quote"', "ünïcödé-ünïcödé"])
def test_a_token_that_cannot_be(token: str) -> None:
    with pytest.raises(ValueError, match="the token must be 8 to 200 letters"):
        Access(token=token)
