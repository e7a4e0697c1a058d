"""Two recognisers that must say the same: the runtime without torch, and torch."""

from pathlib import Path
from typing import NamedTuple

from dualasr_lib.recognition.recogniser import Recogniser


class Pair(NamedTuple):
    """Two ways to the same text."""

    folder: Path
    runtime: Recogniser
    torch: Recogniser
