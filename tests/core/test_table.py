"""Tables: columns line up, in both forms."""

import pytest

from dualasr_lib.core.table import aligned, markdown

LINES = [("name", "CER"), ("a", "12.30"), ("longer", "")]


def test_aligned() -> None:
    assert aligned(LINES).split("\n") == ["name    CER", "a       12.30", "longer"]


def test_markdown() -> None:
    assert markdown(LINES).split("\n") == [
        "| name   | CER   |",
        "| ------ | ----- |",
        "| a      | 12.30 |",
        "| longer |       |",
    ]


def test_lines_of_different_length_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="shorter"):
        aligned([("a", "b"), ("c",)])
