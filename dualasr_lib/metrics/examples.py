"""Texts to read during training: some of the validation set, others each time, and the worst."""

from collections.abc import Sequence
from typing import NamedTuple

from dualasr_lib.core.table import markdown
from dualasr_lib.metrics.error_rate import ErrorCounts

__all__ = ["Compared", "example_table"]


class Compared(NamedTuple):
    """An utterance, what was said and what was recognised."""

    id: str
    reference: str
    text: str
    counts: ErrorCounts


def example_table(found: Sequence[Compared], turn: int, count: int) -> str:
    """A Markdown table of `count` utterances that moves on through all of them from turn to turn,
    and of the `count` with the most errors; ties in the order of `found`.

    Args:
        turn: number of the validation; after len(found) / count turns each was shown.
    """
    start = turn * count
    shown = [found[(start + i) % len(found)] for i in range(min(count, len(found)))]
    worst = sorted(found, key=lambda item: -item.counts.errors)[:count]
    lines = [("", "utterance", "errors", "reference", "recognised")]
    for why, items in (("next in turn", shown), ("most errors", worst)):
        for item in items:
            errors = f"{item.counts.errors} of {item.counts.num_ref}"
            lines.append((why, item.id, errors, _cell(item.reference), _cell(item.text)))
    return markdown(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
