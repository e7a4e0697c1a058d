"""The language model of a search, from the files that prepare.sh wrote or the user names."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dualasr_lib.core.files import file_hash
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.lattice.lexicon import LexiconLm
from dualasr_lib.lattice.lm import LanguageModel
from dualasr_lib.lattice.ngram import NgramLm

__all__ = ["Language", "default_lm", "load_language"]


@dataclass(frozen=True)
class Language:
    """A language model, or none."""

    lm: LanguageModel | None = None
    params: dict[str, Any] = field(default_factory=dict)
    """Which files it came from, for reports."""

    def required(self, method: str) -> LanguageModel:
        """The model; ValueError if there is none."""
        if self.lm is None:
            raise ValueError(f"method {method} needs a language model: give --lm")
        return self.lm


def load_language(tokenizer: Tokenizer, arpa: Path, lexicon: Path | None = None) -> Language:
    """An n-gram of tokens; with a lexicon, of words.

    Raises:
        ValueError: a file is missing or does not fit the tokens.
    """
    symbols = {token: number for number, token in enumerate(tokenizer.tokens)}
    params = {"lm": _named(arpa)}
    if lexicon is None:
        return Language(NgramLm.load(arpa, symbols), params)
    words = LexiconLm.load(lexicon, arpa, symbols)
    return Language(words, {**params, "lexicon": _named(lexicon)})


def default_lm(lang_dir: Path, words: bool, highest: bool) -> Path:
    """The n-gram that prepare.sh left in a lang folder: of tokens or words, of its highest or
    lowest order.

    Raises:
        ValueError: there is none.
    """
    kind = "words" if words else "G"
    found = sorted(lang_dir.glob(f"{kind}_*gram.arpa"), key=_order)
    if not found:
        raise ValueError(
            f"'{lang_dir}' has no {kind}_<order>gram.arpa; prepare.sh stage 6 writes it, "
            "or name another with --lm"
        )
    return found[-1 if highest else 0]


def _order(path: Path) -> int:
    digits = "".join(char for char in path.stem if char.isdigit())
    return int(digits or 0)


def _named(path: Path) -> str:
    """Name and the beginning of the content's hash."""
    if not path.is_file():
        raise ValueError(
            f"'{path}' must be a file, but is {'a folder' if path.is_dir() else 'missing'}"
        )
    return f"{path.name} {file_hash(path)}"
