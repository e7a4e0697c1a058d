"""Who may come in: names of the host, origins, a token, and how many at once.

A browser sends requests to this server from any page that its user looks at. Such a page's Origin
is another one, and is refused; a name of the host that is not ours is refused too, since a page may
let a name of its own point here. Programs send no Origin.
"""

import hmac
import ipaddress
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from dualasr_lib.serving.limits import Limits
from dualasr_lib.serving.metrics import Metrics

__all__ = ["Access", "Gate", "Refusal", "protocols"]

_BEARER = "bearer."
_HERE = ("localhost", "127.0.0.1", "::1")


class Refusal(NamedTuple):
    """Why somebody may not come in."""

    status: int
    """HTTP."""
    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may."""

    token: str | None = None
    """None: everybody who reaches the server."""
    hosts: tuple[str, ...] = ()
    """Names of this server, besides those of the machine itself and bare addresses."""

    def __post_init__(self) -> None:
        token = self.token
        if token is not None and not re.fullmatch(r"[\w.~+/=-]{8,200}", token, re.ASCII):
            raise ValueError(
                "the token must be 8 to 200 letters, digits or . _ ~ + / = -, but has "
                f"{len(token)} characters, or others"
            )


class Gate:
    """Decides, and counts who is inside."""

    def __init__(self, access: Access, limits: Limits, metrics: Metrics) -> None:
        self._access, self._limits, self._metrics = access, limits, metrics
        self._inside: Counter[str] = Counter()
        self.is_closing = False
        """Nobody else comes in."""

    def stranger(self, connection: HTTPConnection, needs_token: bool = True) -> Refusal | None:
        """Why not this one, whoever else is there."""
        host = _name(connection.headers.get("host", ""))
        if not self._is_ours(host):
            return self.refused(403, "host", f"{host or 'no name'} is no name of this server")
        origin = connection.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != connection.headers["host"]:
            return self.refused(403, "origin", "another page may not use this server")
        if needs_token and not self._has_token(connection):
            return self.refused(401, "token", "the token is missing or wrong")
        return None

    def crowd(self, address: str, is_ready: bool, behind_seconds: float) -> Refusal | None:
        """Why not now."""
        if self.is_closing:
            return self.refused(503, "closing", "the server is about to end")
        if not is_ready:
            return self.refused(503, "not_ready", "the model is being loaded; try again soon")
        if behind_seconds > self._limits.busy_seconds:
            return self.refused(503, "busy", f"the server is {behind_seconds:.0f} s behind")
        if self._inside.total() >= self._limits.streams:
            return self.refused(503, "full", f"all {self._limits.streams} places are taken")
        if self._inside[address] >= self._limits.streams_per_address:
            most = self._limits.streams_per_address
            return self.refused(
                503, "address_full", f"{most} streams come from your address already"
            )
        return None

    @contextmanager
    def place(self, address: str) -> Iterator[None]:
        """A place, from the very moment that `crowd` had nothing against it."""
        self._inside[address] += 1
        self._metrics.streams.set(self._inside.total())
        try:
            yield
        finally:
            self._inside[address] -= 1
            if not self._inside[address]:
                del self._inside[address]
            self._metrics.streams.set(self._inside.total())

    def __len__(self) -> int:
        """Who is inside."""
        return self._inside.total()

    def refused(self, status: int, code: str, message: str) -> Refusal:
        """A refusal, counted."""
        self._metrics.refused.labels(code).inc()
        return Refusal(status, code, message)

    def _is_ours(self, host: str) -> bool:
        if host in _HERE or host in self._access.hosts:
            return True
        try:
            ipaddress.ip_address(host)  # a page cannot let an address point elsewhere
        except ValueError:
            return False
        return True

    def _has_token(self, connection: HTTPConnection) -> bool:
        token = self._access.token
        if token is None:
            return True
        given = connection.headers.get("authorization", "").removeprefix("Bearer ")
        for protocol in protocols(connection):
            if protocol.startswith(_BEARER):
                given = protocol.removeprefix(_BEARER)
        return hmac.compare_digest(given.encode(), token.encode())


def protocols(connection: HTTPConnection) -> list[str]:
    """Those that a client offers."""
    value = connection.headers.get("sec-websocket-protocol", "")
    return [name.strip() for name in value.split(",") if name.strip()]


def _name(host: str) -> str:
    """Without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
