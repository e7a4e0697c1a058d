"""What the server and its decoding process say to each other: plain values, pickled over a pipe.

The pipe is between a process and its own child; nothing that a client sent is ever unpickled.
"""

from typing import Literal, NamedTuple

from dualasr_lib.decoding.events import Event

__all__ = [
    "Answer",
    "Audio",
    "Begin",
    "Broken",
    "Checked",
    "Drop",
    "End",
    "Heard",
    "Kind",
    "Lost",
    "Order",
    "Over",
    "Probe",
    "Ready",
    "Said",
    "Stepped",
]

Kind = Literal["<i2", "<f4"]
"""Of samples: 16-bit integers, or floating point in [-1, 1]; little-endian."""


class Begin(NamedTuple):
    """A stream."""

    stream: int
    rate: int
    """Hz of its audio."""
    kind: Kind


class Audio(NamedTuple):
    """More of it."""

    stream: int
    samples: bytes
    """Mono, of the stream's kind."""


class End(NamedTuple):
    """No more audio will come; its last texts are still wanted."""

    stream: int


class Drop(NamedTuple):
    """Nobody wants the stream any more."""

    stream: int


class Probe(NamedTuple):
    """Asks for one chunk to be decoded, to see whether all is well."""

    number: int


Order = Begin | Audio | End | Drop | Probe


class Ready(NamedTuple):
    """The model is loaded and has decoded a chunk."""

    weights: str
    """Which, for people."""
    sample_rate: int
    chunk_ms: int
    two_pass: bool


class Broken(NamedTuple):
    """The model could not be loaded."""

    error: str
    """One line."""


class Said(NamedTuple):
    """Texts of a stream."""

    stream: int
    event: Event


class Heard(NamedTuple):
    """How far a stream has been heard, in seconds of its audio."""

    stream: int
    seconds: float


class Over(NamedTuple):
    """The last message of a stream."""

    stream: int
    error: str
    """Why it could not go on; empty: it was ended."""
    seconds: float
    """Audio in all."""


class Stepped(NamedTuple):
    """One step of the model was made."""

    seconds: float
    streams: int
    """That shared it."""


class Checked(NamedTuple):
    """A probe was decoded."""

    number: int
    seconds: float
    streams: int
    """That the decoder holds: live ones and recordings."""


class Lost(NamedTuple):
    """The decoding process is gone, and with it all that it had heard; made by the server."""

    stream: int


Answer = Ready | Broken | Said | Heard | Over | Stepped | Checked
