"""NIST SPHERE files (*.sph): lhotse reads them by the program sph2pipe only; where that is not
installed, libsndfile does, as long as they are not compressed (those of TED-LIUM 3 are not).
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from lhotse import Recording
from lhotse.audio.backend import get_current_audio_backend, set_current_audio_backend

__all__ = ["reading"]


@contextmanager
def reading(recording: Recording) -> Iterator[None]:
    """Within it lhotse reads the audio of `recording` by what is there."""
    names = [str(source.source).lower() for source in recording.sources]
    if not any(name.endswith(".sph") for name in names) or shutil.which("sph2pipe"):
        yield
        return
    former = get_current_audio_backend()
    set_current_audio_backend("LibsndfileBackend")
    try:
        yield
    finally:
        set_current_audio_backend(former)
