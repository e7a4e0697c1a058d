"""What a recipe says about its corpus; everything else is the same for all (prepare.py).

A unit is what the transcriber marked: lhotse's supervision as plain values (`Item`). An utterance
is one unit, or several neighbouring ones joined; it becomes a cut.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from dualasr_lib.data.folder import SplitUse
from dualasr_lib.metrics.units import UnitName
from dualasr_lib.recipe.normalise import NORMALISERS
from dualasr_lib.recipe.options import Options
from dualasr_lib.recipe.stage import Folders

__all__ = ["Corpus", "GivenWords", "Item", "Join", "Split"]

Item = dict[str, Any]
"""A unit or an utterance: the plain values of a lhotse supervision."""

O = TypeVar("O", bound=Options)  # noqa: E741


class Split(NamedTuple):
    """A part of the data with one purpose."""

    name: str
    parts: tuple[str, ...]
    """Parts of the manifests that it is made of."""
    use: SplitUse
    pooled: bool = False
    """Whether its results go into the pooled error rate."""


class GivenWords(NamedTuple):
    """Language files that come with a corpus, in place of those made of its training text."""

    arpas: tuple[Path, ...] = ()
    """N-grams of words (ARPA, plain or gzip), of different orders."""
    lexicon: Path | None = None
    """Lines that begin with a word; what follows is not read, tokens spell the words."""


class Join(NamedTuple):
    """How neighbouring units of one speaker become utterances."""

    max_length: float = 10.0
    """Seconds that joined units may last together; a single unit may be longer."""
    gap: float = 1.0
    """Seconds of the shortest pause that parts them."""
    between: Mapping[str, str] = {}
    """What is written between joined units in each field of `custom`; default: nothing."""
    between_texts: str = ""
    """The same for `text`."""


def _never(_: Any, __: Item) -> str | None:
    return None


def _as_it_is(_: Any, unit: Item) -> Item:
    return unit


@dataclass(frozen=True, kw_only=True)
class Corpus(Generic[O]):
    """A corpus: its names, its splits, and functions of its options `O`."""

    name: str
    """Short, lower case: file names begin with it."""
    description: str
    """One line for --help."""
    language: str
    """Code of ISO 639-1."""
    units: tuple[UnitName, ...]
    """What errors are counted in; the first one is the main one."""
    options: type[O]
    """The command line of its prepare.sh."""
    splits: Callable[[O], tuple[Split, ...]]
    """All splits; one of them is for training, one for validation."""
    manifests: Callable[[O, Folders], None]
    """Stage 1: checks the corpus and writes, to `out/manifests`, lhotse's recordings and
    supervisions of each part under the names that `recordings_file` and `supervisions_file` give,
    and `check.json`, plain values for the report."""
    normaliser: Callable[[O], str]
    """What the texts are normalised by: a name in `NORMALISERS`, or the corpus's own way."""
    converter: Callable[[O], Callable[[Item], Item]] | None = None
    """Stage 2, for each unit; default: the normaliser of that name on `text`."""
    refuse: Callable[[O, Item], str | None] = _never
    """Why a unit is left out; it also parts its neighbours."""
    join: Callable[[O], Join | None] = lambda _: None
    """How units are joined; default: not at all."""
    supervision: Callable[[O, Item], Item] = _as_it_is
    """From an utterance's many texts and word times to the one `text` and `alignment`."""
    speeds: tuple[float, ...] = (0.9, 1.1)
    """Of further copies of each training utterance."""
    words: Callable[[O, Item], list[str]] | None = None
    """The words of an utterance, for a lexicon and an n-gram of words; default: what spaces part,
    if errors are counted in words, else there is no lexicon."""

    given_words: Callable[[O], GivenWords] = lambda _: GivenWords()
    """N-grams of words and a lexicon that somebody else made; default: none. Their words are
    lower-cased if the normaliser is `lower`."""

    @property
    def has_spaces(self) -> bool:
        """Whether spaces part the words of the language."""
        return "word" in self.units

    def parts(self, options: O) -> tuple[str, ...]:
        """The parts that splits are made of, each once."""
        return tuple(dict.fromkeys(part for s in self.splits(options) for part in s.parts))

    def recordings_file(self, part: str) -> str:
        """Name of a part's recordings."""
        return f"{self.name}_recordings_{part}.jsonl.gz"

    def supervisions_file(self, part: str) -> str:
        """Name of a part's units."""
        return f"{self.name}_supervisions_{part}.jsonl.gz"

    def cuts_file(self, split: str) -> str:
        """Name of a split's utterances."""
        return f"{self.name}_cuts_{split}.jsonl.gz"

    def convert(self, options: O) -> Callable[[Item], Item]:
        """What stage 2 does with each unit.

        Raises:
            ValueError: the corpus has no converter, and its normaliser has no known name.
        """
        if self.converter is not None:
            return self.converter(options)
        name = self.normaliser(options)
        if name not in NORMALISERS:
            raise ValueError(f"normaliser must be one of {', '.join(NORMALISERS)}, is '{name}'")
        normalise = NORMALISERS[name]
        return lambda unit: unit | {"text": normalise(unit.get("text") or "")}

    def words_of(self, options: O) -> Callable[[Item], list[str]] | None:
        """The words of an utterance; None if the corpus does not know them."""
        if self.words is not None:
            words = self.words
            return lambda utterance: words(options, utterance)
        if self.has_spaces:
            return lambda utterance: str(self.supervision(options, utterance)["text"]).split()
        return None
