"""dualasr: a streaming and a full-context recogniser in one jointly trained model.

Every mechanism lives in this package; choices for one corpus live in egs/. DESIGN.md lists the
layers. What whoever recognises needs can be imported from here; it is looked up when it is asked
for, so that importing the package itself costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dualasr_lib.data.audio import open_audio
    from dualasr_lib.decoding.endpoint import EndpointConfig
    from dualasr_lib.decoding.events import Final, LiveConfig, Partial
    from dualasr_lib.decoding.live import Listener
    from dualasr_lib.decoding.pool import ListenerPool
    from dualasr_lib.recognition.bundle import Bundle, read_bundle, write_bundle
    from dualasr_lib.recognition.recogniser import Recogniser

__version__ = "0.1.0"

__all__ = [
    "Bundle",
    "EndpointConfig",
    "Final",
    "Listener",
    "ListenerPool",
    "LiveConfig",
    "Partial",
    "Recogniser",
    "__version__",
    "open_audio",
    "read_bundle",
    "write_bundle",
]

_PLACES = {
    "Bundle": "recognition.bundle",
    "EndpointConfig": "decoding.endpoint",
    "Final": "decoding.events",
    "Listener": "decoding.live",
    "ListenerPool": "decoding.pool",
    "LiveConfig": "decoding.events",
    "Partial": "decoding.events",
    "Recogniser": "recognition.recogniser",
    "open_audio": "data.audio",
    "read_bundle": "recognition.bundle",
    "write_bundle": "recognition.bundle",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
