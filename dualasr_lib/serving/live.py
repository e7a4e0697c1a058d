"""One live socket, from its first message to its close.

One task always reads, another one writes: a client's pings, its stop and its end are seen at once,
whatever the model does, and a client that does not read holds up nobody. Of a sentence that grows
only the newest text waits to be sent.
"""

import asyncio
import contextlib
import json
import logging
from collections import deque
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from dualasr_lib.serving.engine import Engine, Feed
from dualasr_lib.serving.limits import Limits
from dualasr_lib.serving.messages import Heard, Lost, Over, Said
from dualasr_lib.serving.metrics import Metrics
from dualasr_lib.serving.protocol import (
    Close,
    Problem,
    command,
    ready_message,
    start,
    text_message,
)

__all__ = ["Session"]

_LOG = logging.getLogger(__name__)


class _Outbox:
    """Messages for a client, in order, and the close behind the last one."""

    def __init__(self, most: int) -> None:
        self._messages: deque[dict[str, Any]] = deque()
        self._most = most
        self._news = asyncio.Event()
        self.close: Close | None = None

    def put(self, message: dict[str, Any]) -> bool:
        """False: too many wait; nothing is put behind the close."""
        if self.close is not None:
            return True
        last = self._messages[-1] if self._messages else {}
        if message["type"] == last.get("type") == "partial" and message["seg"] == last["seg"]:
            self._messages.pop()
        if len(self._messages) >= self._most:
            return False
        self._messages.append(message)
        self._news.set()
        return True

    def end(self, message: dict[str, Any], close: Close) -> None:
        """The last one."""
        if self.close is None:
            self._messages.append(message)
            self.close = close
            self._news.set()

    async def next(self) -> dict[str, Any] | None:
        """None: there will be none."""
        while not self._messages:
            if self.close is not None:
                return None
            self._news.clear()
            await self._news.wait()
        return self._messages.popleft()


class Session:
    """A client that has been accepted."""

    def __init__(self, socket: WebSocket, engine: Engine, limits: Limits, metrics: Metrics) -> None:
        self._socket, self._engine = socket, engine
        self._limits, self._metrics = limits, metrics
        self._outbox = _Outbox(limits.unsent_messages)
        self._feed: Feed | None = None
        self._is_stopped, self._last_close = False, Close.DONE
        self._is_overrun = asyncio.Event()

    async def run(self) -> None:
        """Until the socket is closed, whoever closes it."""
        tasks = [asyncio.create_task(step()) for step in (self._read, self._write, self._overrun)]
        reader, writer, _ = tasks
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if reader.done() and isinstance(reader.exception(), Problem):
                problem = reader.exception()
                assert isinstance(problem, Problem)
                self._fail(problem.close, problem.code, str(problem))
                await asyncio.wait([writer], timeout=self._limits.close_seconds)
            reason = self._outbox.close.name.lower() if self._outbox.close else "disconnected"
            self._metrics.closed.labels(
                "slow_reader" if self._is_overrun.is_set() else reason
            ).inc()
        finally:
            if self._feed is not None:
                self._feed.drop()
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception) and not isinstance(result, Problem):
                    _LOG.error("a live socket: %r", result)

    def drain(self) -> None:
        """The server ends: no more audio, but the texts of what has come."""
        self._last_close = Close.GOING_AWAY
        if self._feed is None:
            self._fail(Close.GOING_AWAY, "closing", "the server ends")
        else:
            self._stop()

    async def _read(self) -> None:
        """All that the client says; returns when it is gone."""
        try:
            async with asyncio.timeout(self._limits.session_seconds):
                await self._listen()
        except TimeoutError:
            most = self._limits.session_seconds
            raise Problem(
                Close.SESSION_LENGTH, "session_length", f"a stream lasts at most {most:g} s"
            ) from None
        except WebSocketDisconnect:
            return

    async def _listen(self) -> None:
        limits = self._limits
        first = await self._received(limits.start_seconds)
        rate = start(first.get("text")).sample_rate
        ready = self._engine.ready
        if ready is None:
            raise Problem(Close.RESTART, "restart", "the decoder is being started anew")
        self._feed = self._engine.open(rate, "<i2", self._told)
        self._outbox.put(ready_message(ready, limits))
        while True:
            # whoever has said all waits for texts, however late these are
            message = await self._received(None if self._is_stopped else limits.idle_seconds)
            samples, text = message.get("bytes"), message.get("text")
            if text is None:
                self._audio(samples or b"")
            elif command(text) == "stop":
                self._stop()
            else:
                self._say({"type": "pong"})

    async def _received(self, seconds: float | None) -> Any:
        try:
            async with asyncio.timeout(seconds):
                message = await self._socket.receive()
        except TimeoutError:
            raise Problem(Close.IDLE, "idle", f"nothing came for {seconds:g} s") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        return message

    def _audio(self, samples: bytes) -> None:
        assert self._feed is not None
        if self._is_stopped:
            if self._last_close == Close.GOING_AWAY:
                return  # it does not know yet
            raise Problem(Close.BAD_INPUT, "bad_input", "there can be no audio after `stop`")
        if not samples or len(samples) % 2:
            raise Problem(
                Close.BAD_INPUT, "bad_input",
                f"audio must be 16-bit samples, an even number of bytes, but {len(samples)} came",
            )  # fmt: skip
        self._feed.send(samples)
        limits, unheard = self._limits, self._feed.backlog_seconds
        if min(unheard, self._feed.ahead_seconds) > limits.ahead_seconds:
            raise Problem(
                Close.TOO_FAST, "too_fast",
                f"more than {limits.ahead_seconds:g} s of audio wait: send it as fast as it is "
                "spoken, or POST the recording to /transcribe",
            )  # fmt: skip
        if unheard > limits.behind_seconds:
            raise Problem(
                Close.OVERLOADED,
                "overloaded",
                f"the server is {limits.behind_seconds:g} s behind: it has too much to do",
            )

    def _stop(self) -> None:
        if self._feed is not None and not self._is_stopped:
            self._is_stopped = True
            self._feed.end()

    def _told(self, answer: Said | Heard | Over | Lost) -> None:
        """By the engine."""
        if isinstance(answer, Heard):
            return
        if isinstance(answer, Said):
            self._say(text_message(answer.event))
        elif isinstance(answer, Lost):
            self._fail(Close.RESTART, "restart", "the decoder was lost and is started anew")
        elif answer.error:
            self._fail(Close.BAD_INPUT, "failed", answer.error)
        else:
            end = {"type": "end", "seconds": round(answer.seconds, 3)}
            self._outbox.end(end, self._last_close)

    def _say(self, message: dict[str, Any]) -> None:
        if not self._outbox.put(message):
            self._is_overrun.set()

    def _fail(self, close: Close, code: str, message: str) -> None:
        self._outbox.end({"type": "error", "code": code, "message": message}, close)

    async def _write(self) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # the client is gone
            while (message := await self._outbox.next()) is not None:
                await self._socket.send_text(json.dumps(message, ensure_ascii=False))
            await self._socket.close(self._outbox.close or Close.DONE)

    async def _overrun(self) -> None:
        """Ends the session of a client that does not read: there is no use in telling it."""
        await self._is_overrun.wait()
