"""What clients and server say on a live socket: subprotocol `asr.v1`.

Client: text `{"type":"start","sample_rate":48000}` first; then binary, s16le mono, in messages of
about 100 ms; then text `{"type":"stop"}`. `{"type":"ping"}` at any time.
Server, text: `ready`, `partial` (all of the sentence so far), `final` (in its place), `end`, or
`error`, then it closes.
"""

import json
from enum import IntEnum
from typing import Any, Literal, NamedTuple

from dualasr_lib.decoding.events import Event, Partial
from dualasr_lib.serving.limits import RATES, Limits
from dualasr_lib.serving.messages import Ready

__all__ = ["NAME", "Close", "Problem", "Start", "command", "ready_message", "start", "text_message"]

NAME = "asr.v1"
"""The subprotocol."""

_MOST_CHARACTERS = 1024  # of a text message


class Close(IntEnum):
    """Why a socket is closed."""

    DONE = 1000
    GOING_AWAY = 1001
    TOO_BIG = 1009
    RESTART = 1012
    OVERLOADED = 1013
    BAD_INPUT = 4400
    IDLE = 4408
    SESSION_LENGTH = 4409
    SLOW_READER = 4410
    TOO_FAST = 4429


class Problem(Exception):
    """A stream cannot go on."""

    def __init__(self, close: Close, code: str, message: str) -> None:
        super().__init__(message)
        self.close, self.code = close, code


class Start(NamedTuple):
    """The first message."""

    sample_rate: int


def start(text: str | None) -> Start:
    """The first message of a client; None: it was binary.

    Raises:
        Problem: it is none.
    """
    message = _message(text) if text is not None else {}
    if message.get("type") != "start" or message.keys() != {"type", "sample_rate"}:
        raise _bad('the first message must be {"type":"start","sample_rate":N}')
    rate = message["sample_rate"]
    if type(rate) is not int or rate not in RATES:
        raise _bad(f"`sample_rate` must be one of {', '.join(map(str, RATES))}")
    return Start(rate)


def command(text: str) -> Literal["stop", "ping"]:
    """A later text message.

    Raises:
        Problem: it is none.
    """
    kind = _message(text).get("type")
    if kind == "start":
        raise _bad("the stream has been started already")
    if kind == "stop":
        return "stop"
    if kind == "ping":
        return "ping"
    raise _bad('`type` must be "stop" or "ping"')


def ready_message(ready: Ready, limits: Limits) -> dict[str, Any]:
    """Audio may be sent."""
    return {
        "type": "ready",
        "chunk_ms": ready.chunk_ms,
        "two_pass": ready.two_pass,
        "max_message_bytes": limits.message_bytes,
        "idle_timeout_s": limits.idle_seconds,
        "session_s": limits.session_seconds,
    }


def text_message(event: Event) -> dict[str, Any]:
    """A sentence as it grows, or its final text."""
    if isinstance(event, Partial):
        return {"type": "partial", "seg": event.segment, "text": event.text}
    return {
        "type": "final",
        "seg": event.segment,
        "text": event.text,
        "start": round(event.start_seconds, 3),
        "end": round(event.end_seconds, 3),
        "pass": 2 if event.second_pass == "done" else 1,
        "ms": round(1000 * event.finalise_seconds, 1),
    }


def _message(text: str) -> dict[str, Any]:
    if len(text) > _MOST_CHARACTERS:
        raise _bad(f"a text message must have at most {_MOST_CHARACTERS} characters")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise _bad("a text message must be JSON") from None
    if not isinstance(message, dict):
        raise _bad("a text message must be an object")
    return message


def _bad(message: str) -> Problem:
    return Problem(Close.BAD_INPUT, "bad_input", message)
