"""What is fed to live streams: 16 bits or floats, numpy or torch are the same audio; the rest is
refused in one line, and the stream goes on as if nothing had come.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from live_cases import GREEDY, QUICK, RowModel, Text, second_pass, timeless

from dualasr_lib.decoding.events import LiveConfig
from dualasr_lib.decoding.live import Listener, Rules
from dualasr_lib.decoding.pool import ListenerPool

INT16 = np.random.default_rng(0).integers(-20000, 20000, 30000).astype(np.int16)
KINDS: dict[str, Callable[[Any], Any]] = {
    "int16": lambda block: block,
    "big-endian int16": lambda block: block.astype(">i2"),
    "int16 tensor": torch.from_numpy,
    "float64": lambda block: block / 32768.0,
    "float32 tensor": lambda block: torch.from_numpy(block / np.float32(32768)),
}
REFUSED: dict[str, Any] = {
    "int16-scaled floats": INT16.astype(np.float32),
    "bytes": INT16.tobytes(),
    "a list": INT16[:99].tolist(),
    "two channels": np.zeros((99, 2), np.float32),
    "int32": INT16.astype(np.int32),
    "a path": "talk.wav",
    "nothing": None,
}
CONFIG = LiveConfig(endpoint=QUICK)


def listened(blocks: list[Any], detokenise: Text) -> list[Any]:
    listener = Listener(Rules(RowModel(), GREEDY, detokenise, CONFIG, second_pass))
    events: list[Any] = []
    for block in blocks:
        try:
            events += listener.feed(block)
        except ValueError as error:
            events.append(error)
    return timeless([*events, *listener.finish()])


def pooled(blocks: list[Any], detokenise: Text) -> list[Any]:
    pool = ListenerPool(Rules(RowModel(), GREEDY, detokenise, CONFIG, second_pass))
    pool.open("a")
    events: list[Any] = []
    for block in blocks:
        try:
            pool.feed("a", block)
        except ValueError as error:
            events.append(error)
        while pool.is_ready:
            events += pool.step().get("a", ())
    pool.finish("a")
    while "a" in pool:
        events += pool.step().get("a", ())
    return timeless(events[:-1])  # the last one is `Ended`


WAYS = pytest.mark.parametrize("way", [listened, pooled])


@WAYS
@pytest.mark.parametrize("kind", KINDS)
def test_one_audio_is_one_text(way: Any, kind: str, detokenise: Text) -> None:
    blocks = [INT16[start : start + 7000] for start in range(0, len(INT16), 7000)]
    expected = way([block / np.float32(32768) for block in blocks], detokenise)
    assert len(expected) > 5
    assert way([KINDS[kind](block) for block in blocks], detokenise) == expected


@WAYS
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_audio_changes_nothing(way: Any, kind: str, detokenise: Text) -> None:
    events = way([INT16[:9000], REFUSED[kind], INT16[9000:]], detokenise)
    [error] = [event for event in events if isinstance(event, ValueError)]
    assert str(error) and "\n" not in str(error)
    events.remove(error)
    assert events == way([INT16[:9000], INT16[9000:]], detokenise)
