"""When words appear: emission delay, first-token latency, revisions, percentiles.

All times are seconds on one clock that starts with the stream's audio. A stream's history is the
sequence of texts it has shown, each with the time it appeared; the last one is the final text.
Definitions (ours where the literature leaves room):

- A character of the final text is *shown for good* from the first time since which every shown
  text starts with the final text up to and including it.
- Emission delay: time at which a word is shown for good (its last character, with all before it)
  minus the word's reference end. Measured for words of which every character is correct in the
  alignment of the final text with the words; nothing is interpolated inside a word. It can be
  negative.
- First-token latency: time of the first text that is not empty, minus the start of the first word.
- Revised characters: characters shown that the next shown text does not keep (after their common
  prefix).
"""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np

from dualasr_lib.metrics.alignment import align
from dualasr_lib.metrics.units import characters

__all__ = [
    "Shown",
    "TimedWord",
    "algorithmic_latency_ms",
    "emission_delays",
    "first_token_latency",
    "percentiles_ms",
    "revised_characters",
    "stable_times",
]


class Shown(NamedTuple):
    """One text as it appeared."""

    text: str
    seconds: float
    """Time since the start of the stream's audio."""


class TimedWord(Protocol):
    """A reference word with its true times, in seconds since the start of the utterance."""

    @property
    def text(self) -> str:
        """The word as it stands in the transcript."""

    @property
    def start(self) -> float:
        """Where its sound starts."""

    @property
    def end(self) -> float:
        """Where its sound ends."""


def algorithmic_latency_ms(chunk_samples: int, lookahead_samples: int, sample_rate: int) -> float:
    """Worst case that no computer can shorten: one chunk plus the look-ahead, in milliseconds."""
    return 1000 * (chunk_samples + lookahead_samples) / sample_rate


def stable_times(history: Sequence[Shown]) -> list[float]:
    """For each counted character of the final text, the time since which it has been shown for
    good.
    """
    texts = [characters(shown.text) for shown in history]
    if not texts:
        return []
    final = texts[-1]
    kept = len(final)
    times = [history[-1].seconds] * kept
    for text, shown in zip(reversed(texts), reversed(history)):
        kept = min(kept, _common_prefix(text, final))
        times[:kept] = [shown.seconds] * kept
    return times


def emission_delays(history: Sequence[Shown], words: Iterable[TimedWord]) -> list[float]:
    """Emission delay of each correct word, in seconds, in the order of the words."""
    spelt = [(characters(word.text), word.end) for word in words]
    times = stable_times(history)
    final = characters(history[-1].text) if history else []
    shown_at = _correct_times([char for chars, _ in spelt for char in chars], final, times)
    delays = []
    position = 0
    for chars, end in spelt:
        word_times = shown_at[position : position + len(chars)]
        position += len(chars)
        if word_times and not any(math.isnan(time) for time in word_times):
            delays.append(word_times[-1] - end)
    return delays


def first_token_latency(history: Sequence[Shown], words: Sequence[TimedWord]) -> float | None:
    """First-token latency in seconds; None without words or if nothing was ever shown."""
    if not words:
        return None
    times = (shown.seconds for shown in history if characters(shown.text))
    first = next(times, None)
    return None if first is None else first - min(word.start for word in words)


def revised_characters(history: Sequence[Shown]) -> int:
    """Characters shown and later changed or withdrawn."""
    texts = [characters(shown.text) for shown in history]
    return sum(len(old) - _common_prefix(old, new) for old, new in pairwise(texts))


def percentiles_ms(
    seconds: Sequence[float], ranks: Sequence[int] = (50, 90, 99)
) -> dict[str, float | None]:
    """`{"p50": ..., ...}` in milliseconds, linear between samples; None where there is none."""
    if not seconds:
        return {f"p{rank}": None for rank in ranks}
    values = np.percentile(np.asarray(seconds, dtype=np.float64), list(ranks))
    return {f"p{rank}": 1000 * float(value) for rank, value in zip(ranks, values)}


def _correct_times(ref: list[str], final: list[str], times: list[float]) -> list[float]:
    """For each reference character the time its correct copy was shown for good; NaN if it has
    none.
    """
    result = []
    position = 0
    for pair in align(ref, final):
        if pair.ref is not None:
            result.append(times[position] if pair.ref == pair.hyp else math.nan)
        position += pair.hyp is not None
    return result


def _common_prefix(left: Sequence[str], right: Sequence[str]) -> int:
    """Number of items that both sequences start with."""
    for index, (a, b) in enumerate(zip(left, right)):
        if a != b:
            return index
    return min(len(left), len(right))
