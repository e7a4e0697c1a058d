"""What a server grants its clients. Everything that a client can make grow has a bound here."""

from dataclasses import dataclass, fields

__all__ = ["RATES", "Limits"]

RATES = (8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)
"""Hz, that live audio may have."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds; the defaults suit one machine with one model and a handful of users."""

    streams: int = 32
    """Live streams at once; more are refused (503), so that those that are there stay live."""
    streams_per_address: int = 8
    """Of them from one address."""
    message_bytes: int = 65536
    """Of one message of a client: 0.7 s at 48 kHz."""
    ahead_seconds: float = 10.0
    """Of unheard audio that came before it can have been spoken: the client is too fast."""
    behind_seconds: float = 30.0
    """Of unheard audio, when the server is too slow: the stream is ended."""
    busy_seconds: float = 5.0
    """Of unheard audio of any live stream, from which on new streams are refused (503)."""
    start_seconds: float = 5.0
    """From the connection to the `start` message, and to the end of a request's header."""
    close_seconds: float = 5.0
    """For a client to take what is left for it, and to close."""
    idle_seconds: float = 30.0
    """Without any message of a client that has not said `stop`."""
    session_seconds: float = 600.0
    """Of a live stream."""
    unsent_messages: int = 64
    """To a client that does not read; of a sentence that grows only the newest text waits."""
    uploads: int = 2
    """Recordings that are transcribed at once."""
    upload_bytes: int = 200 * 2**20
    """Of a recording."""
    upload_receive_seconds: float = 600.0
    """In which it must have come."""
    upload_seconds: float = 3 * 3600.0
    """Audio of a recording."""
    reader_bytes: int = 2**29
    """Memory that the process that decodes a recording's file may take for that."""
    reader_cpu_seconds: int = 300
    """Its CPU time."""
    second_pass_seconds: float = 3.0
    """From the end of a sentence; later its first text stays."""
    second_passes: int = 16
    """That wait at once; more are not begun."""
    hung_seconds: float = 30.0
    """Without any answer of the decoding process; then it is replaced."""
    drain_seconds: float = 8.0
    """At the end of the server, for final texts that are under way."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not value > 0:
                raise ValueError(f"`{item.name}` must be above 0, but is {value}")
