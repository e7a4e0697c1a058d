"""What errors are counted in: characters (CER) or words (WER), and how a text is split."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

__all__ = ["CHARACTER", "UNITS", "WORD", "Unit", "UnitName", "characters", "words"]

UnitName = Literal["character", "word"]


class Unit(NamedTuple):
    """A kind of item that a reference is made of."""

    name: UnitName
    rate: str
    """What its error rate is called in results: "cer", "wer"."""
    plural: str
    """As results write it: "chars", "words"."""
    normalisation: str
    """For reports: what is done to a text before its units are compared."""
    split: Callable[[str], list[str]]
    """The units of a text, in order."""
    glue: str
    """What stands between two units of a text."""

    @property
    def label(self) -> str:
        """ "CER" or "WER"."""
        return self.rate.upper()

    def join(self, items: Sequence[str]) -> str:
        """A text of these units."""
        return self.glue.join(items)


def characters(text: str) -> list[str]:
    """Unicode code points without white space, because Japanese writes none."""
    return [char for char in text if not char.isspace()]


def words(text: str) -> list[str]:
    """What white space parts."""
    return text.split()


CHARACTER = Unit(
    name="character",
    rate="cer",
    plural="chars",
    normalisation="white space removed; one Unicode code point = one character",
    split=characters,
    glue="",
)
WORD = Unit(
    name="word",
    rate="wer",
    plural="words",
    normalisation="words are what white space parts",
    split=words,
    glue=" ",
)
UNITS: dict[UnitName, Unit] = {unit.name: unit for unit in (CHARACTER, WORD)}
"""By name."""
