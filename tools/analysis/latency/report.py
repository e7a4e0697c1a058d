"""Points of a latency curve: pooled over their splits, as lines of a Markdown table, and what its
columns mean.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from analysis.latency.cells import Cell
from dualasr_lib.core.table import markdown
from dualasr_lib.decoding.summary import main_unit
from dualasr_lib.metrics.bootstrap import BootstrapConfig, Interval, cer_interval

__all__ = ["Point", "pool", "table"]

_LATENCY = ("first ms", "emission ms", "revised", "chunk compute ms", "RTF")


class Point(NamedTuple):
    """One chunk length, or the full branch, on all splits."""

    chunk_ms: int | None
    """None: the full branch."""
    trained: bool
    """Whether the model was trained with such chunks."""
    cer: Interval
    """Of all splits together."""
    split_cers: dict[str, float | None]
    latency: Mapping[str, Any]
    """As `latency_summary`, of all splits together."""
    rtf: float | None

    @property
    def worst_ms(self) -> float | None:
        """Algorithmic latency of the first sample of a chunk; None: until the sentence ends."""
        return self.latency["algorithmic_ms"]

    @property
    def mean_ms(self) -> float | None:
        """Of a sample anywhere in the chunk: half the chunk, and the look-ahead."""
        if self.worst_ms is None or self.chunk_ms is None:
            return None
        return self.worst_ms - self.chunk_ms / 2


def pool(
    cells: Sequence[Cell],
    latency: Mapping[str, Any],
    chunk_ms: int | None = None,
    trained: bool = True,
) -> Point:
    """The point of some cells, one per split; `latency` is of all of them."""
    summaries = [cell.result.summary for cell in cells]
    counts = [count for cell in cells for count in cell.result.counts.values()]
    errors, chars = [c.errors for c in counts], [c.num_ref for c in counts]
    seconds = sum(summary["audio_seconds"] for summary in summaries)
    compute = sum((summary["rtf"] or 0.0) * summary["audio_seconds"] for summary in summaries)
    return Point(
        chunk_ms,
        trained,
        cer_interval(errors, chars, BootstrapConfig()),
        {summary["split"]: summary[main_unit(summary).rate] for summary in summaries},
        latency,
        compute / seconds if seconds else None,
    )


def table(points: Sequence[Point]) -> str:
    """Markdown: a line per point, and below what it says."""
    splits = list(points[0].split_cers)
    header = ("chunk ms", "worst ms", "mean ms", "CER %", "95 %", *splits, *_LATENCY)
    text = markdown([header, *(_cells(point) for point in points)])
    return f"{text}\n\n{_notes(points)}"


def _cells(point: Point) -> tuple[str, ...]:
    latency, cer = point.latency, point.cer
    shown = ("end of sentence", "-")
    if point.worst_ms is not None:
        shown = (_number(point.worst_ms, 1), _number(point.mean_ms, 1))
    return (
        "full" if point.chunk_ms is None else f"{point.chunk_ms}{'' if point.trained else ' *'}",
        *shown,
        _percent(cer.value),
        f"{_percent(cer.low)}-{_percent(cer.high)}",
        *(_percent(value) for value in point.split_cers.values()),
        _number(latency["first_token_ms"]),
        _percentiles(latency["emission_ms"], ("p50", "p90", "p99")),
        _number(latency["partial_revision_rate"], 3),
        _percentiles(latency["chunk_compute_ms"], ("p50", "p99")),
        _number(point.rtf, 3),
    )


def _notes(points: Sequence[Point]) -> str:
    streams = points[0].latency["num_streams"]
    notes = [
        "worst, mean: algorithmic latency, chunk + look-ahead and chunk/2 + look-ahead. "
        f"CER: of {' + '.join(points[0].split_cers)}. "
        "first: first text after speech onset, median.",
        "emission: a correct word is shown for good after it ended, p50/p90/p99, on the clock of "
        "the audio (compute time excluded). revised: characters withdrawn / final characters.",
        f"chunk compute: p50/p99 of a step of up to {streams} streams; like RTF it depends on what "
        "else the machine does.",
    ]
    if any(not point.trained for point in points):
        notes.append("\\*: the model was not trained with chunks of this length.")
    if any(point.chunk_ms is None for point in points):
        notes.append(
            "full: decoded offline; its text counts as shown when the sentence has ended, without "
            "the time to compute it."
        )
    return "\n".join(f"- {note}" for note in notes)


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def _percentiles(values: Mapping[str, float | None], keys: Sequence[str]) -> str:
    found = [_number(values[key]) for key in keys]
    return "-" if set(found) == {"-"} else "/".join(found)
