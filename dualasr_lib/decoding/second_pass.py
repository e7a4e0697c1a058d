"""The second pass of live recognition: started at an endpoint, here or elsewhere, and its result
made the final text in the order of the segments.

A caller may run it elsewhere: `submit` takes a task and returns what `concurrent.futures` calls a
future, so `ThreadPoolExecutor(1).submit` fits. Whatever becomes of a second pass, a segment has its
text: that of the first pass stands where the second one failed or was late.
"""

import math
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from dualasr_lib.core.arrays import Array, joined, without_gradient
from dualasr_lib.decoding.contract import Rewritten, SecondPass, Sentence
from dualasr_lib.decoding.events import Final, SecondPassOutcome, TimedToken
from dualasr_lib.decoding.hypothesis import PathLike, ScoredText
from dualasr_lib.decoding.offline import Detokenise, token_texts
from dualasr_lib.decoding.segment import Closed, Parts

__all__ = [
    "Pending",
    "Submit",
    "Task",
    "TimedResult",
    "Waiting",
    "final_of",
    "rewrite",
    "run_here",
    "started",
]


class TimedResult(NamedTuple):
    """What a second pass gave."""

    rewritten: Rewritten
    seconds: float
    """Wall time."""


Task = Callable[[], TimedResult]


class Pending(Protocol):
    """A second pass that runs somewhere (`concurrent.futures.Future`)."""

    def done(self) -> bool:
        """Whether there is a result or an error."""

    def result(self, timeout: float | None = None) -> TimedResult:
        """Waits for it; TimeoutError after `timeout` seconds, or the task's own error."""

    def cancel(self) -> object:
        """Nobody wants it any more."""


Submit = Callable[[Task], Pending]
"""Starts a second pass."""


class _Here:
    """A task that was run at once."""

    def __init__(self, task: Task) -> None:
        self._result: TimedResult | None = None
        self._error: Exception | None = None
        try:
            self._result = task()
        except Exception as error:
            self._error = error

    def done(self) -> bool:
        return True

    def result(self, timeout: float | None = None) -> TimedResult:
        del timeout
        if self._result is None:
            assert self._error is not None
            raise self._error
        return self._result

    def cancel(self) -> None:
        pass


def run_here(task: Task) -> Pending:
    """Runs the task before it returns: the `Submit` of those who have no other place."""
    return _Here(task)


def started(submit: Submit, task: Task) -> Pending:
    """What `submit` makes of the task; a place that takes no more tasks fails this one only."""
    try:
        return submit(task)
    except Exception as error:
        refusal = error

        def fail() -> TimedResult:
            raise refusal

        return _Here(fail)


def rewrite(
    second_pass: SecondPass,
    hidden: tuple[Array, ...],
    proposed: tuple[ScoredText, ...] = (),
    seconds: float = math.inf,
) -> Task:
    """The second pass of a segment with hidden states (S_i, C), at least one, as a task.

    Args:
        proposed: texts that the first pass lists.
        seconds: time that it has, from now on.
    """
    until = time.perf_counter() + seconds

    def task() -> TimedResult:
        begun = time.perf_counter()
        sentence = Sentence(joined(hidden), proposed, until - begun)
        with without_gradient():  # which is a matter of each thread
            rewritten = second_pass(sentence)
        return TimedResult(rewritten, time.perf_counter() - begun)

    return task


class Waiting(NamedTuple):
    """A segment that is over and waits for its final text."""

    closed: Closed
    pending: Pending | None
    """None: there is no second pass."""
    deadline: float
    """When its time is up, on the clock of whoever asks."""

    def is_due(self, now: float) -> bool:
        """Whether `final_of` would not wait."""
        return self.pending is None or self.pending.done() or now >= self.deadline


def final_of(parts: Parts, waiting: Waiting, now: float) -> Final:
    """The final text; waits for the second pass until its deadline."""
    closed, pending = waiting.closed, waiting.pending
    if pending is None:
        return _final(parts, closed, closed.path)
    left = max(0.0, waiting.deadline - now)
    try:
        result = pending.result(None if math.isinf(left) else left)
    except TimeoutError:
        pending.cancel()
        return _final(parts, closed, closed.path, outcome="late")
    except Exception as error:
        # whatever it was, the words that are there already must not be lost with it
        failure = str(error) or type(error).__name__
        return _final(parts, closed, closed.path)._replace(second_pass="failed", failure=failure)
    path = result.rewritten.path
    final = _final(parts, closed, closed.path if path is None else path)
    return final._replace(
        second_pass="late" if path is None else "done",
        left_out=result.rewritten.left_out,
        finalise_seconds=result.seconds,
        fallbacks=result.rewritten.fallbacks,
    )


def _final(
    parts: Parts, closed: Closed, path: PathLike, outcome: SecondPassOutcome = "none"
) -> Final:
    rate = parts.model.sample_rate
    start = closed.start / rate
    return Final(
        start_seconds=start,
        end_seconds=closed.end / rate,
        text=parts.detokenise(path.tokens),
        tokens=_timed(parts.detokenise, path, start, parts.frame_seconds),
        reason=closed.reason,
        first_pass_text=parts.detokenise(closed.path.tokens),
        finalise_seconds=0.0,
        segment=closed.number,
        second_pass=outcome,
    )


def _timed(
    detokenise: Detokenise, path: PathLike, start: float, frame_seconds: float
) -> tuple[TimedToken, ...]:
    """The tokens of a segment that starts at `start`, in seconds."""
    texts = token_texts(detokenise, path.tokens)
    sure = path.confidences or [None] * len(texts)
    return tuple(
        TimedToken(text, start + frame * frame_seconds, confidence)
        for text, frame, confidence in zip(texts, path.frames, sure)
    )
