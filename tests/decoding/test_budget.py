"""Time that a second pass has, on a clock of the test's own."""

import math

import pytest

from dualasr_lib.decoding.budget import Budget, Pace


class Clock:
    """Work takes as long as it says."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def work(self, seconds: float) -> str:
        self.time += seconds
        return f"{seconds:g} s"


def test_without_a_limit_nothing_is_left_out() -> None:
    clock, pace = Clock(), Pace()
    for _ in range(3):
        budget = Budget(math.inf, pace, clock.now)
        assert budget.run("slow", 1.0, lambda: clock.work(1e6)) == "1e+06 s"
        assert budget.left_out == ()


@pytest.mark.parametrize(("seconds", "fits"), [(1.0, True), (0.999, False), (-1.0, False)])
def test_a_part_runs_if_it_is_expected_to_fit(seconds: float, fits: bool) -> None:
    """Just in time is in time; what is left out takes no time, and others may still fit."""
    clock, pace = Clock(), Pace()
    pace.learn("part", 10.0, 2.0)
    budget = Budget(seconds, pace, clock.now)
    assert budget.run("part", 5.0, lambda: clock.work(1.0)) == ("1 s" if fits else None)
    assert budget.left_out == (() if fits else ("part",))
    assert clock.time == 100.0 + fits
    assert budget.must("part", 5.0, lambda: clock.work(1.0)) == "1 s"


def test_the_time_of_parts_before_counts() -> None:
    clock, pace = Clock(), Pace()
    for name, each in (("a", 0.4), ("b", 0.4), ("c", 0.1)):
        pace.learn(name, 1.0, each)
    budget = Budget(0.95, pace, clock.now)
    assert budget.run("a", 1.0, lambda: clock.work(0.5)) is not None
    assert budget.run("b", 1.0, lambda: clock.work(0.4)) is not None
    assert budget.run("c", 1.0, lambda: clock.work(0.1)) is None
    assert budget.left_out == ("c",)


@pytest.mark.parametrize(("takes", "least", "most"), [(0.1, 20, 30), (2.0, 1, 5)])
def test_what_was_left_out_is_tried_again(takes: float, least: int, most: int) -> None:
    """One slow run does not keep a part out for ever; a slow part is left out mostly."""
    clock, pace, ran = Clock(), Pace(), 0
    pace.learn("part", 1.0, 2.0)
    for _ in range(40):
        budget = Budget(1.0, pace, clock.now)
        ran += budget.run("part", 1.0, lambda: clock.work(takes)) is not None
    assert least <= ran <= most


def test_what_has_never_run_is_tried_and_learnt() -> None:
    clock, pace = Clock(), Pace()
    assert Budget(0.1, pace, clock.now).run("new", 2.0, lambda: clock.work(4.0)) == "4 s"
    assert pace.expected("new", 3.0) == pytest.approx(6.0)
    assert Budget(5.0, pace, clock.now).run("new", 3.0, lambda: clock.work(1.0)) is None
    for _ in range(20):  # and it may become faster
        Budget(math.inf, pace, clock.now).run("new", 1.0, lambda: clock.work(0.5))
    assert pace.expected("new", 1.0) == pytest.approx(0.5, rel=0.01)
    assert pace.expected("other", 9.0) == 0.0
    pace.learn("new", 0.0, 9.0)  # no work says nothing
    assert pace.expected("new", 1.0) == pytest.approx(0.5, rel=0.01)
