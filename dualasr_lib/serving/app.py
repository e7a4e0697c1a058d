"""What is at which address.

/            the page                 /health      one chunk decoded, or 503
/live        WebSocket (`protocol`)   /metrics     for Prometheus
/transcribe  POST a recording: ?format=json|text|srt|vtt, &progress=1 tells how far it is
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from importlib.resources import files
from typing import IO, Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from dualasr_lib.decoding.captions import Format, Transcript, render
from dualasr_lib.serving.access import Access, Gate, Refusal, protocols
from dualasr_lib.serving.engine import Engine
from dualasr_lib.serving.http import settled
from dualasr_lib.serving.limits import Limits
from dualasr_lib.serving.live import Session
from dualasr_lib.serving.metrics import Metrics
from dualasr_lib.serving.protocol import NAME, text_message
from dualasr_lib.serving.uploads import (
    MEDIA_TYPES,
    BadRecordingError,
    DecoderLostError,
    received,
    transcribed,
    wanted_format,
)
from dualasr_lib.serving.worker import Load

__all__ = ["Service"]

_SCRIPT = "text/javascript; charset=utf-8"
_PAGE = {
    "index.html": "text/html; charset=utf-8",
    "page.js": _SCRIPT,
    "words.js": _SCRIPT,
    "transcript.js": _SCRIPT,
    "microphone.js": _SCRIPT,
    "worklet.js": _SCRIPT,
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""Files of the page; no other can be asked for."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_HEALTH_SECONDS = 5.0
_RETRY = {"Retry-After": "5"}


class Service:
    """One model, its clients and its counters.

    Attributes:
        app: for an ASGI server.
        failure: why the model could not be loaded.
    """

    def __init__(self, load: Load, access: Access, limits: Limits) -> None:
        self.limits, self.metrics = limits, Metrics()
        self.engine = Engine(load, limits, self.metrics)
        self._gate = Gate(access, limits, self.metrics)
        self._sessions: set[Session] = set()
        self._uploads = 0
        self.failure: ValueError | None = None
        page = [Route(f"/{name}", self._page) for name in ("", *_PAGE)]
        self.app = Starlette(
            routes=[
                *page,
                Route("/health", self._health),
                Route("/metrics", self._metrics),
                Route("/live", self._explain),
                Route("/transcribe", self._transcribe, methods=["POST"]),
                WebSocketRoute("/live", self._live),
            ],
            lifespan=self._lifespan,
        )

    async def drain(self) -> None:
        """Nobody else comes in; live streams end with their last texts."""
        self._gate.is_closing = True
        for session in self._sessions:
            session.drain()
        await settled(self.limits.drain_seconds, lambda: not self._sessions and not self._uploads)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        try:
            await self.engine.start()
        except ValueError as error:
            self.failure = error
            await self.engine.stop()
            raise
        try:
            yield
        finally:
            await self.engine.stop()

    async def _page(self, request: Request) -> Response:
        refusal = self._gate.stranger(request, needs_token=False)
        if refusal is not None:
            return _no(refusal)
        name = request.url.path.removeprefix("/") or "index.html"
        content = files("dualasr_lib.serving").joinpath("page", name).read_bytes()
        return Response(content, media_type=_PAGE[name], headers=_HEADERS)

    async def _health(self, request: Request) -> Response:
        ready = self.engine.ready
        try:
            checked = await self.engine.probe(_HEALTH_SECONDS)
        except TimeoutError:
            return JSONResponse({"status": "unavailable"}, 503, _RETRY)
        told: dict[str, Any] = {"status": "ok", "chunk_seconds": round(checked.seconds, 4)}
        if ready is not None:
            told |= {"chunk_ms": ready.chunk_ms, "two_pass": ready.two_pass}
        told |= {"streams": len(self._gate), "decoding": checked.streams}
        return JSONResponse({**told, "behind_seconds": round(self.engine.behind_seconds, 2)})

    async def _metrics(self, request: Request) -> Response:
        refusal = self._gate.stranger(request)
        if refusal is not None:
            return _no(refusal)
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return Response(self.metrics.page(), media_type=kind)

    async def _explain(self, request: Request) -> Response:
        """Why a browser's socket was refused, which tells its page nothing."""
        refusal = self._gate.stranger(request) or self._crowd(request)
        return _no(refusal or Refusal(426, "upgrade", "this is a WebSocket"))

    def _crowd(self, connection: Request | WebSocket) -> Refusal | None:
        engine = self.engine
        return self._gate.crowd(
            _address(connection), engine.ready is not None, engine.behind_seconds
        )

    async def _live(self, socket: WebSocket) -> None:
        offered = protocols(socket)
        refusal = self._gate.stranger(socket)
        if refusal is None and offered and NAME not in offered:
            refusal = self._gate.refused(400, "protocol", f"the subprotocol must be {NAME}")
        refusal = refusal or self._crowd(socket)
        if refusal is not None:
            await socket.send_denial_response(_no(refusal))
            return
        with self._gate.place(_address(socket)):  # no await between the look and this
            await socket.accept(subprotocol=NAME if offered else None)
            session = Session(socket, self.engine, self.limits, self.metrics)
            self._sessions.add(session)
            try:
                await session.run()
            finally:
                self._sessions.discard(session)

    async def _transcribe(self, request: Request) -> Response:
        refusal = self._gate.stranger(request)
        if refusal is None and (self._gate.is_closing or self.engine.ready is None):
            refusal = self._gate.refused(503, "not_ready", "the model is being loaded")
        if refusal is None and self._uploads >= self.limits.uploads:
            refusal = self._gate.refused(503, "uploads_full", "other recordings are being heard")
        if refusal is not None:
            return _no(refusal)
        self._count_uploads(1)
        is_handed_on = False
        try:
            kind = wanted_format(request.query_params.get("format", "json"))
            file = await received(request, self.limits)
            if request.query_params.get("progress") == "1":
                lines = self._lines(file, kind)
                is_handed_on = True
                return StreamingResponse(lines, media_type="application/x-ndjson")
            with file:
                return await _unless_gone(request, lambda: self._whole(file, kind))
        except BadRecordingError as error:
            return _no(self._gate.refused(error.status, "recording", str(error)))
        except DecoderLostError:
            return _no(self._gate.refused(503, "lost", "the decoder was lost; try again"))
        except ClientDisconnect:
            return Response(status_code=400)
        finally:
            if not is_handed_on:
                self._count_uploads(-1)

    def _count_uploads(self, more: int) -> None:
        self._uploads += more
        self.metrics.uploads.set(self._uploads)

    async def _whole(self, file: IO[bytes], kind: Format) -> Response:
        made: list[Transcript] = []
        async for _ in transcribed(file, self.engine, self.limits, made):
            pass
        return Response(render(made[0], kind), media_type=MEDIA_TYPES[kind])

    async def _lines(self, file: IO[bytes], kind: Format) -> AsyncIterator[str]:
        """A line of JSON for each step, the last one is the result or an error."""
        made: list[Transcript] = []
        try:
            with file:
                steps = transcribed(file, self.engine, self.limits, made)
                async with aclosing(steps):  # type: ignore[type-var]
                    async for step in steps:
                        told = {"type": "progress", "seconds": round(step.seconds, 2)}
                        finals = [text_message(final) for final in step.finals]
                        yield _line({**told, "of": step.of, "finals": finals})
                content = render(made[0], kind)
                yield _line({"type": "result", "format": kind, "content": content})
        except BadRecordingError as error:
            yield _line({"type": "error", "code": "recording", "message": str(error)})
        except DecoderLostError:
            yield _line({"type": "error", "code": "lost", "message": "the decoder was lost"})
        finally:
            self._count_uploads(-1)


async def _unless_gone(request: Request, make: Callable[[], Awaitable[Response]]) -> Response:
    """The answer; nobody makes it any more if its asker is gone."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answer, leaving = asyncio.ensure_future(make()), asyncio.ensure_future(gone())
    try:
        await asyncio.wait([answer, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        for task in (answer, leaving):
            task.cancel()
        await asyncio.gather(answer, leaving, return_exceptions=True)


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def _address(connection: Request | WebSocket) -> str:
    return connection.client.host if connection.client is not None else ""


def _no(refusal: Refusal) -> JSONResponse:
    told = {"type": "error", "code": refusal.code, "message": refusal.message}
    headers = _RETRY if refusal.status == 503 else {}
    if refusal.status == 401:
        headers = {"WWW-Authenticate": "Bearer"}
    return JSONResponse(told, refusal.status, headers)
