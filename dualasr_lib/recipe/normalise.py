"""Ways to normalise transcripts, by name; the name is recorded in DATA and in every summary.

All of them turn white space of any kind into single spaces and strip the ends.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping

__all__ = ["NORMALISERS"]

_NOT_ENGLISH = re.compile(r"[^\w' ]|_")
_LONE_APOSTROPHE = re.compile(r"(?<!\w)'+|'+(?!\w)")
_JAPANESE = r"[぀-ヿ㐀-䶿一-鿿々〆〇]"
_SPACE_IN_JAPANESE = re.compile(rf"(?<={_JAPANESE}) +(?={_JAPANESE})")


def _plain(text: str) -> str:
    return " ".join(text.split())


def _lower(text: str) -> str:
    return _plain(text.lower())


def _nfkc(text: str) -> str:
    return _plain(unicodedata.normalize("NFKC", text))


def _japanese(text: str) -> str:
    """NFKC without punctuation, symbols and spaces between Japanese characters."""
    kept = (
        " " if unicodedata.category(char)[0] in "PSZ" else char
        for char in unicodedata.normalize("NFKC", text)
    )
    return _SPACE_IN_JAPANESE.sub("", _plain("".join(kept)))


def _english(text: str) -> str:
    """Lower case, apostrophes inside words, letters and digits; all else parts words."""
    folded = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    return _plain(_LONE_APOSTROPHE.sub(" ", _NOT_ENGLISH.sub(" ", folded)))


NORMALISERS: Mapping[str, Callable[[str], str]] = {
    "none": _plain,
    "lower": _lower,
    "nfkc": _nfkc,
    "japanese": _japanese,
    "english": _english,
}
"""Name -> what it does to a text."""
