"""A client: says samples to a server at their natural speed, and collects what comes back.

    python -m dualasr_lib.serving.client ws://127.0.0.1:8000/live FILE

Browsers have a client of their own, the page. The token, if there is one, is DUALASR_TOKEN.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

__all__ = ["Spoken", "Told", "recorded", "speak"]

_BLOCK_SECONDS = 0.1


class Told(NamedTuple):
    """A message of the server."""

    seconds: float
    """Since the first block was sent."""
    message: dict[str, Any]


class Spoken(NamedTuple):
    """A stream from its beginning to its end."""

    told: list[Told]
    close: int | None
    """Code with which the server closed it."""
    stopped_seconds: float
    """When all had been sent, on the clock of `told`."""

    @property
    def finals(self) -> list[str]:
        """Texts of the sentences in which something was said."""
        messages = [told.message for told in self.told]
        return [m["text"] for m in messages if m["type"] == "final" and m["text"]]


async def speak(
    url: str,
    samples: bytes,
    rate: int,
    *,
    speed: float = 1.0,
    seconds: float | None = None,
    token: str | None = None,
    show: Callable[[dict[str, Any]], None] | None = None,
) -> Spoken:
    """All that the server says to s16le samples.

    Args:
        speed: seconds of audio that are sent in one second.
        seconds: of audio: the samples again and again, or not all of them; None: once.

    Raises:
        OSError, websockets.InvalidStatus: there is no server, or it refuses.
    """
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with connect(
        url,
        subprotocols=[Subprotocol("asr.v1")],
        compression=None,
        open_timeout=60,  # both machines may be busy
        additional_headers=headers,
    ) as socket:
        await socket.send(json.dumps({"type": "start", "sample_rate": rate}))
        begun = time.monotonic()
        sender = asyncio.create_task(_send(socket, samples, rate, speed, seconds))
        told: list[Told] = []
        try:
            async for text in socket:
                told.append(Told(time.monotonic() - begun, json.loads(text)))
                if show is not None:
                    show(told[-1].message)
        except ConnectionClosed:
            pass
        finally:
            sender.cancel()
            [stopped] = await asyncio.gather(sender, return_exceptions=True)
        ended = stopped if isinstance(stopped, float) else time.monotonic()
        return Spoken(told, socket.close_code, ended - begun)


async def _send(
    socket: ClientConnection, samples: bytes, rate: int, speed: float, seconds: float | None
) -> float:
    """When all had been sent."""
    begun, size = time.monotonic(), 2 * int(_BLOCK_SECONDS * rate)
    total = len(samples) if seconds is None else 2 * int(seconds * rate)
    for sent in range(0, total, size):
        due = begun + (sent / 2 / rate + _BLOCK_SECONDS) / speed  # it has been spoken by then
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        start, most = sent % len(samples), min(size, total - sent)
        block = samples[start : start + most]
        await socket.send(block + samples[: most - len(block)])
    await socket.send('{"type":"stop"}')
    return time.monotonic()


def recorded(paths: Sequence[str | Path], rate: int) -> bytes:
    """Recordings one after the other, s16le at `rate` Hz.

    Raises:
        ValueError: one cannot be read.
    """
    from dualasr_lib.data.audio import open_audio

    blocks = [block for path in paths for block in open_audio(path, rate).blocks(rate)]
    return b"".join((32767 * block).astype("<i2").tobytes() for block in blocks)


def _main() -> None:
    url, path = sys.argv[1:]
    rate = 16000
    samples = recorded([path], rate)
    token = os.environ.get("DUALASR_TOKEN")

    def show(message: dict[str, Any]) -> None:
        print(json.dumps(message, ensure_ascii=False), flush=True)

    asyncio.run(speak(url, samples, rate, token=token, show=show))


if __name__ == "__main__":
    _main()
