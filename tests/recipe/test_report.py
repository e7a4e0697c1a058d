"""What the report of a data folder says of splits without utterances."""

import pytest

pytest.importorskip("lhotse")
pytest.importorskip("sentencepiece")

from dualasr_lib.recipe.corpus import Split
from dualasr_lib.recipe.report import what_is_empty

SPLITS = (
    Split("train-all", parts=("a",), use="train"),
    Split("dev", parts=("b",), use="valid"),
    Split("test", parts=("c",), use="eval"),
    Split("rest", parts=("d",), use="other"),
)


@pytest.mark.parametrize(
    ("empty", "remedy"), [("train-all", "train on"), ("dev", "--scales"), ("test", "decode")]
)
def test_a_split_without_utterances_is_named(empty: str, remedy: str) -> None:
    sizes = {split.name: 0 if split.name == empty else 3 for split in SPLITS}
    (line,) = what_is_empty(SPLITS, sizes)
    assert line.startswith(f"split {empty} has no utterances: ")
    assert remedy in line


def test_what_nobody_needs_may_be_empty() -> None:
    assert what_is_empty(SPLITS, {"train-all": 1, "dev": 1, "test": 1, "rest": 0}) == []
