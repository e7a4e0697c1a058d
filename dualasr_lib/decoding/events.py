"""What recognition of running audio says while it listens, and its options.

Segments of a stream are numbered; the `Final` of a number replaces its last `Partial`. Partials of
the next segment may come before the final text of this one, which a second pass is still writing;
final texts always come in order. Times count from the start of the stream.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from dualasr_lib.decoding.endpoint import EndpointConfig, EndReason

__all__ = [
    "Event",
    "Final",
    "LiveConfig",
    "Partial",
    "SecondPassOutcome",
    "TimedToken",
    "live_config",
]

SecondPassOutcome = Literal["none", "done", "late", "failed"]
"""What became of the second pass: not asked for, its text is the final one, its time was up, an
error. Unless it is done the final text is that of the first pass.
"""

_EARLY_SECONDS = 0.08
"""Silence after which a second pass with a budget begins: with chunks of 320 ms there is then a
step before every endpoint, which comes after 0.4 s or more."""


class Partial(NamedTuple):
    """The text of the current segment has changed, or more of it is certain."""

    start_seconds: float
    """Where the segment begins."""
    text: str
    committed_text: str
    """The beginning of `text` that the first pass cannot change any more."""
    audio_seconds: float
    """Audio that had to be there for it."""
    segment: int = 0
    confidences: tuple[float, ...] = ()
    """Of each token of `committed_text`, as in `TimedToken`; that of the last one may still rise
    while it is being said. Empty if the search tells none.
    """


class TimedToken(NamedTuple):
    """A token of a final text; the texts of all tokens joined are the segment's."""

    text: str
    seconds: float
    """When it was emitted: start of its encoder frame, from the start of the stream."""
    confidence: float | None = None
    """Probability that it is right, by the branch that wrote it, as far as it is calibrated
    (`confidence`); None if the search tells none.
    """


class Final(NamedTuple):
    """A segment has ended. Segments without text are reported too."""

    start_seconds: float
    end_seconds: float
    text: str
    tokens: tuple[TimedToken, ...]
    reason: EndReason
    first_pass_text: str
    """What the streaming search made of it; equals `text` without a second pass."""
    finalise_seconds: float
    """Wall time of the second pass; 0 without one."""
    fallbacks: int = 0
    """Times that memory ran out in the second pass and less was searched."""
    segment: int = 0
    second_pass: SecondPassOutcome = "none"
    failure: str = ""
    """The error of a second pass that failed."""
    left_out: tuple[str, ...] = ()
    """Parts of the second pass that there was no time for (`LiveConfig.budget_seconds`)."""

    @property
    def confidences(self) -> tuple[float, ...]:
        """Of its tokens, as far as they are known."""
        return tuple(token.confidence for token in self.tokens if token.confidence is not None)


Event = Partial | Final


@dataclass(frozen=True, kw_only=True)
class LiveConfig:
    """Options of live recognition."""

    endpoint: EndpointConfig = field(default_factory=EndpointConfig)
    """When a segment ends."""
    budget_seconds: float = math.inf
    """Time that the second pass has from the endpoint on. Parts that are not expected to fit are
    left out: heads that weigh texts, or all of it. What was begun
    early has no limit: nobody waits for it."""
    deadline_seconds: float = math.inf
    """Time that the second pass has from the endpoint on, waiting for others included. Only one
    that runs elsewhere (`second_pass.Submit`) can be left behind.
    """
    early_seconds: float = math.inf
    """Trailing silence after which the second pass starts on what was heard, one step before the
    endpoint may come; it is thrown away and started anew if speech goes on. Off by default: where
    nobody waits for the text it only costs.
    """

    def __post_init__(self) -> None:
        for name in ("budget_seconds", "deadline_seconds", "early_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be greater than 0, but is {getattr(self, name)}")


def live_config(endpoint: EndpointConfig, budget: float) -> LiveConfig:
    """With a budget the second pass begins while the endpoint is still being waited for."""
    early = math.inf if math.isinf(budget) else _EARLY_SECONDS
    return LiveConfig(endpoint=endpoint, budget_seconds=budget, early_seconds=early)
