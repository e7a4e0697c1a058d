"""Figures about models in README.md and egs/csj/README.md are those of count_parameters.py."""

import re
from functools import cache
from pathlib import Path

import pytest
from bench.parameters import STEPS, encoder_counts, total
from bench.workloads import Setting

ROOT = Path(__file__).parents[2]
CONF = ROOT / "egs/csj/conf"
DOCUMENTS = ("README.md", "egs/csj/README.md")
_FIGURE = re.compile(r"(\d+(?:\.\d+)?)(?: M| million)? parameters|ours,[\s\S]{0,99}?has (\d+\.\d+)")
_ROW = re.compile(r"^\| `(\w+)\.toml` \|.*\| (\d+) \([^|]*\) \| ([\d., ]+) \|$", re.MULTILINE)


@cache
def counted(config: str, tokens: int, step: str) -> float:
    """Millions."""
    return total(Setting(config=CONF / f"{config}.toml", vocab_size=tokens), step) / 1e6


def rounds_to(count: float, shown: str) -> bool:
    """Whether a figure is what the count rounds to, to as many places."""
    digits = len(shown.partition(".")[2])
    return f"{count:.{digits}f}" == shown


def rows() -> list[tuple[str, int, list[str]]]:
    """Configuration, tokens and figures of the table in egs/csj/README.md."""
    text = (ROOT / "egs/csj/README.md").read_text(encoding="utf-8")
    return [(name, int(v), shown.split(", ")) for name, v, shown in _ROW.findall(text)]


@pytest.mark.parametrize(("name", "tokens", "shown"), rows(), ids=lambda value: str(value))
def test_the_table_of_configurations(name: str, tokens: int, shown: list[str]) -> None:
    assert len(shown) == len(STEPS)
    for step, figure in zip(STEPS, shown):
        assert rounds_to(counted(name, tokens, step), figure), step


def test_every_base_has_its_row() -> None:
    assert [name for name, *_ in rows()] == ["demo", "demo_transducer", "noisy", "small", "csj"]


def figures(text: str) -> list[str]:
    return [one or other for one, other in _FIGURE.findall(text)]


def test_figures_in_sentences() -> None:
    """There is none that is not listed here."""
    found = {document: figures((ROOT / document).read_text("utf-8")) for document in DOCUMENTS}
    assert found == {"README.md": ["145", "22.33", "22.329"], "egs/csj/README.md": []}
    small = encoder_counts(Setting(config=CONF / "sizes/small.toml"), 500).encoder / 1e6
    assert rounds_to(small, "22.33") and rounds_to(small, "22.329")
    assert rounds_to(counted("csj", 3266, "joint"), "145")


def test_a_wrong_figure_is_found() -> None:
    assert figures("the demo (6.8 M parameters), 22.33 million parameters") == ["6.8", "22.33"]
    assert not rounds_to(counted("demo", 128, "joint"), "6.8")
    assert rounds_to(counted("demo", 128, "joint"), "4.2")
