"""Tables of text: columns that line up, plain or in Markdown."""

from collections.abc import Sequence

__all__ = ["aligned", "markdown"]


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns that line up; all lines have equally many cells."""
    return "\n".join("  ".join(line).rstrip() for line in _padded(lines))


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose source lines up, too; the first line is its header."""
    rule = ["-" * width for width in _widths(lines)]
    head, *others = _padded(lines)
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *others])


def _padded(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    widths = _widths(lines)
    return [[cell.ljust(width) for cell, width in zip(line, widths)] for line in lines]


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*lines, strict=True)]
