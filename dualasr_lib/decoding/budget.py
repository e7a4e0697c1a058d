"""Time that a second pass has: parts that are not expected to fit are left out, and named.

How long a part takes is learnt from how long it took before, per unit of its work; a part that has
never run is tried. What was left out is believed to be a little faster next time, so that a machine
that was busy for a while is not taken for a slow one for ever. Clocks differ from machine to
machine, and so may texts under a budget; without one nothing is ever left out.
"""

import math
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["Budget", "Pace"]

T = TypeVar("T")
_NEWEST = 0.3  # share of the newest measurement in what is expected
_HOPE = 0.95  # what is left of an expectation that kept a part from running


class Pace:
    """Seconds per unit of work of each part, as measured on this machine."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def expected(self, part: str, work: float) -> float:
        """Seconds that `work` units of a part will take; 0 if it has never run."""
        return self._seconds.get(part, 0.0) * work

    def doubt(self, part: str) -> None:
        """A part was left out for what is expected of it."""
        self._seconds[part] = _HOPE * self._seconds.get(part, 0.0)

    def learn(self, part: str, work: float, seconds: float) -> None:
        """A part has taken so long."""
        if work > 0:
            new = seconds / work
            old = self._seconds.get(part, new)
            self._seconds[part] = old + _NEWEST * (new - old)


class Budget:
    """The time of one second pass.

    Args:
        seconds: from now on; math.inf: no limit.
        pace: what has been learnt; None: nothing.
        now: seconds on any clock.
    """

    def __init__(
        self,
        seconds: float = math.inf,
        pace: Pace | None = None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._now, self._pace = now, pace or Pace()
        self._until = now() + seconds
        self.left_out: tuple[str, ...] = ()
        """Parts that did not fit, in the order in which they were asked for."""

    def run(self, part: str, work: float, do: Callable[[], T]) -> T | None:
        """What `do` returns; None if the part is not expected to fit, which is noted."""
        if self._now() + self._pace.expected(part, work) > self._until:
            self.left_out += (part,)
            self._pace.doubt(part)
            return None
        return self.must(part, work, do)

    def must(self, part: str, work: float, do: Callable[[], T]) -> T:
        """The same of a part that nothing can do without: it is run in any case."""
        begun = self._now()
        result = do()
        self._pace.learn(part, work, self._now() - begun)
        return result
