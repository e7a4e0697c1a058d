"""The web server: uvicorn, with bounds on connections that never say what they want.

Left to uvicorn: HTTP and WebSocket themselves, pings, the close of a peer that answers ours.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from dualasr_lib.serving.limits import Limits

__all__ = ["WebServer", "configured", "settled"]

_LOG = logging.getLogger(__name__)

_MOST_HEADER_BYTES = 16384
_MORE_CONNECTIONS = 64
"""Than streams: pages, health, uploads."""


class WebServer(Server):
    """uvicorn's, that lets live streams come to their ends first."""

    def __init__(self, config: Config, address: str, drain: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._address, self._drain = address, drain

    async def startup(self, sockets: Any = None) -> None:
        """As uvicorn's, and says where."""
        await super().startup(sockets)
        if self.started:
            _LOG.info("listening at %s", self._address)

    async def shutdown(self, sockets: Any = None) -> None:
        """No new connections; what is under way; the end."""
        for server in self.servers:
            server.close()
        for listening in sockets or ():
            listening.close()
        await self._drain()
        await super().shutdown(sockets)


def configured(app: Any, host: str, port: int, limits: Limits, **options: Any) -> Config:
    """uvicorn's configuration."""

    class Http(H11Protocol):
        """HTTP/1.1; a connection that asks nothing in time is closed."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._seen = -1
            self._later = self.loop.call_later(limits.start_seconds, self._check)

        def connection_lost(self, exc: Exception | None) -> None:
            self._later.cancel()
            super().connection_lost(exc)

        def _check(self) -> None:
            if self.transport.get_protocol() is not self:
                return  # a WebSocket by now
            is_busy = self.cycle is not None and not self.cycle.response_complete
            count = 0 if self.cycle is None else id(self.cycle)
            if self.transport.is_closing() or (not is_busy and self._seen == count):
                self.transport.abort()
                return
            self._seen = -1 if is_busy else count
            self._later = self.loop.call_later(limits.start_seconds, self._check)

    class Live(WebSocketsSansIOProtocol):
        """A WebSocket; one that is closed and does not take its last bytes is dropped."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._later = self.loop.call_later(limits.close_seconds, self._check)

        def connection_lost(self, exc: Exception | None) -> None:
            self._later.cancel()
            super().connection_lost(exc)

        def _check(self) -> None:
            if self.transport.is_closing():
                self.transport.abort()
                return
            self._later = self.loop.call_later(limits.close_seconds, self._check)

    return Config(
        app, host=host, port=port, http=Http, ws=Live, loop="asyncio", lifespan="on",
        log_config=None, access_log=False, server_header=False, date_header=True,
        ws_max_size=limits.message_bytes, ws_per_message_deflate=False,
        ws_ping_interval=20.0, ws_ping_timeout=20.0, timeout_keep_alive=10,
        timeout_graceful_shutdown=5, h11_max_incomplete_event_size=_MOST_HEADER_BYTES,
        limit_concurrency=limits.streams + _MORE_CONNECTIONS, **options,
    )  # fmt: skip


async def settled(seconds: float, is_over: Callable[[], bool]) -> bool:
    """Whether it is over within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            while not is_over():
                await asyncio.sleep(0.05)
    except TimeoutError:
        return False
    return True
