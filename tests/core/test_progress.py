"""Progress: lines where nobody sits at a terminal, a bar where somebody does; time left."""

import io
import re

import pytest

from dualasr_lib.core import progress as progress_module
from dualasr_lib.core.progress import Progress, watched


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test moves."""
    clock = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: clock[0])
    return clock


def left(line: str) -> tuple[float, float]:
    """Seconds per thing as a line of 1000 things says, and as its time left says."""
    found = re.search(r": (\d+) of 1000 .* ([\d.]+) s each, (\d+):(\d+):(\d+) left", line)
    assert found is not None, line
    done, each, hours, minutes, seconds = (float(group) for group in found.groups())
    return each, (3600 * hours + 60 * minutes + seconds) / (1000 - done)


def test_lines_with_the_time_left(now: list[float]) -> None:
    stream = io.StringIO()
    with Progress("training", "steps", done=100, stream=stream) as progress:
        for step in range(101, 131):
            now[0] += 1.0
            progress.show(step, 1100 if step < 120 else 0, f"loss {step}")
    assert stream.getvalue().splitlines() == [
        "training: 110 of 1100 steps  loss 110  1.00 s each, 0:16:30 left",
        "training: 120 steps  loss 120  1.00 s each",
        "training: 130 steps  loss 130  1.00 s each",
    ]


def test_a_stall_does_not_change_the_time_left(now: list[float]) -> None:
    """The mean since the start would say 6 times as much."""
    stream = io.StringIO()
    with Progress("decoding", "utterances", 1000, stream=stream) as progress:
        for batch in range(20):
            now[0] += 200.0 if batch == 3 else 2.0
            progress.add(10)
    assert left(stream.getvalue().splitlines()[-1]) == (0.2, 0.2)


def test_the_time_left_follows_the_speed(now: list[float]) -> None:
    stream = io.StringIO()
    with Progress("decoding", "utterances", 1000, stream=stream) as progress:
        for number in range(400):
            now[0] += 0.01 if number < 200 else 1.0
            progress.add(1)
    assert left(stream.getvalue().splitlines()[-1]) == (1.0, 1.0)


def test_things_done_in_bursts(now: list[float]) -> None:
    """Four workers end together, every 10 s: the median of the gaps would be 0."""
    stream = io.StringIO()
    with Progress("features", "shards", 1000, stream=stream) as progress:
        for number in range(200):
            now[0] += 10.0 if number % 4 == 0 else 0.001
            progress.add(1)
    each, of_time_left = left(stream.getvalue().splitlines()[-1])
    assert each == pytest.approx(2.5, rel=0.1)
    assert of_time_left == pytest.approx(2.5, rel=0.1)


def test_a_validation_that_comes_again_and_again_counts(now: list[float]) -> None:
    """Every 5 steps of 1 s, 20 s of it: a step costs 5 s, where the median says 1 s."""
    stream = io.StringIO()
    with Progress("training", "steps", 1000, stream=stream) as progress:
        for step in range(1, 201):
            now[0] += 21.0 if step % 5 == 0 else 1.0
            progress.add(1)
    each, of_time_left = left(stream.getvalue().splitlines()[-1])
    assert (each, of_time_left) == (5.0, 5.0)


def test_fast_things_are_counted_per_second(now: list[float]) -> None:
    stream = io.StringIO()
    with Progress("listening", "seconds of audio", stream=stream) as progress:
        now[0] += 10.0
        progress.add(500)
    assert stream.getvalue() == "listening: 500 seconds of audio  50 per second\n"


def test_a_bar_on_a_terminal() -> None:
    stream = _Terminal()
    with Progress("training", "steps", stream=stream) as progress:
        progress.show(1, 4, "loss 1.0")
        progress.note("valid cer 0.1")
        progress.show(4, 4, "loss 0.5")
    assert "valid cer 0.1" in stream.getvalue()
    assert "/4 [" in stream.getvalue()


def test_silent_on_other_ranks() -> None:
    stream = io.StringIO()
    with Progress("training", "steps", enabled=False, stream=stream) as progress:
        progress.note("hello")
        progress.show(1, 2, "x")
    assert stream.getvalue() == ""


def test_the_end_says_how_many_in_which_time(now: list[float]) -> None:
    stream = io.StringIO()
    progress = Progress("eval1", "utterances", done=2, stream=io.StringIO())
    now[0] += 3.0
    progress.add(5)
    progress.close("CER 1.00 %", stream)
    assert stream.getvalue() == "eval1: 5 utterances in 3.0 s; CER 1.00 %\n"


def test_watched_shows_how_far_it_is(now: list[float]) -> None:
    stream = io.StringIO()
    seen = []
    for item in watched(range(30), "validation", "batches", stream=stream):
        seen.append(item)
        now[0] += 1.0
    assert seen == list(range(30))
    assert stream.getvalue().splitlines() == [
        f"validation: {count} batches  1.00 s each" for count in (10, 20, 30)
    ]


def test_watched_of_a_known_number_says_the_time_left(now: list[float]) -> None:
    """A stall in the middle does not count; the mean since the start would say 0:00:44."""
    stream = io.StringIO()
    for number in watched(range(30), "features", "done", 30, stream=stream):
        now[0] += 100.0 if number == 5 else 1.0
    assert "features: 16 of 30 done  1.00 s each, 0:00:14 left" in stream.getvalue().splitlines()


def test_watched_is_a_bar_on_a_terminal() -> None:
    stream = _Terminal()
    assert list(watched("abc", "validation", "batches", stream=stream)) == ["a", "b", "c"]
    assert "validation" in stream.getvalue()
