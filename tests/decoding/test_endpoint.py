"""The endpoint rules, to the frame."""

import math
from dataclasses import fields

import pytest

from dualasr_lib.decoding.endpoint import EndpointConfig, endpoint, is_near

FRAME = 0.04
NAMES = [field.name for field in fields(EndpointConfig)]


@pytest.mark.parametrize(
    ("num_frames", "last", "reason"),
    [
        (0, None, None),
        (59, None, None),  # 2.36 s
        (60, None, "silence"),  # 2.4 s
        (61, None, "silence"),
        (20, 0, None),  # 19 frames after the token's: 0.76 s
        (21, 0, "pause"),  # 0.8 s
        (100, 80, None),
        (100, 79, "pause"),
        (199, 180, None),
        (200, 190, None),  # from 8 s on 10 frames are enough
        (200, 189, "pause"),
        (499, 498, None),
        (500, 499, "length"),  # 20 s
        (500, 400, "pause"),  # the better reason of two
    ],
)
def test_rules(num_frames: int, last: int | None, reason: str | None) -> None:
    assert endpoint(num_frames, last, EndpointConfig(), FRAME) == reason


def test_each_rule_can_be_turned_off() -> None:
    off = EndpointConfig(**dict.fromkeys(NAMES, math.inf))
    assert endpoint(10**6, 3, off, FRAME) is None
    assert endpoint(10**6, None, off, FRAME) is None
    only_silence = EndpointConfig(pause_seconds=math.inf)
    assert endpoint(61, 0, only_silence, FRAME) == "silence"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_what_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        EndpointConfig(**{name: value})


@pytest.mark.parametrize("more", [1, 2, 8])
def test_an_endpoint_is_near_when_the_next_frames_may_bring_it(more: int) -> None:
    """Of silence that goes on: just then a pause is over within as many frames."""
    config = EndpointConfig(pause_seconds=0.4, long_seconds=1.0, breath_seconds=0.2)
    seen = set()
    for last in range(30):
        for count in range(last + 1, last + 14):
            if endpoint(count, last, config, 0.04) is not None:
                break
            silence = round((count - 1 - last) * 0.04, 6)
            comes = endpoint(count + more, last, config, 0.04) == "pause"
            assert is_near(count, silence, config, 0.04, more) == comes
            seen.add(comes)
    assert seen == {True, False}
