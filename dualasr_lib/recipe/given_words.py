"""N-grams of words and a lexicon that come with a corpus, put where decoding looks for them.

`lang/words_<order>gram.arpa` is the given file, unpacked, with its words as the normaliser writes
them; the words of `lang/lexicon.txt` are those of the given lexicon that the n-gram of the lowest
order knows, or all of that n-gram, spelt by the tokens.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from dualasr_lib.core.text import read_lines
from dualasr_lib.recipe.corpus import GivenWords
from dualasr_lib.recipe.stage import PrepareError

__all__ = ["take_arpas", "take_vocabulary"]

_MARKS = {"<s>", "</s>", "<unk>", "<eps>"}
_FOLDS: dict[str, Callable[[str], str]] = {"none": str, "lower": str.lower}


def take_arpas(given: GivenWords, normaliser: str, target: Path) -> dict[int, Path]:
    """Writes the n-grams to `target`; the files by order.

    Raises:
        PrepareError: a file is missing, is no ARPA file, or of an order that another one has; or
            the corpus is normalised by something that cannot be done to single words.
    """
    if normaliser not in _FOLDS:
        raise PrepareError(
            f"given n-grams need a normaliser of {', '.join(_FOLDS)}, but it is '{normaliser}'"
        )
    fold, found = _FOLDS[normaliser], {}
    for path in given.arpas:
        order = _order(path)
        if order in found:
            raise PrepareError(f"'{path}' is a second n-gram of order {order}; name one of them")
        found[order] = target / f"words_{order}gram.arpa"
        with open(found[order], "w", encoding="utf-8") as file:
            file.writelines(fold(line) for line in _lines(path))
        print(f"  {found[order].name} from {path.name}", flush=True)
    return dict(sorted(found.items()))


def take_vocabulary(given: GivenWords, normaliser: str, lowest: Path) -> set[str]:
    """The words of a lexicon over the n-gram `lowest`, as `take_arpas` wrote it."""
    known = set(_unigrams(lowest)) - _MARKS
    if given.lexicon is None:
        return known
    fold = _FOLDS[normaliser]
    words = {fold(line.split()[0]) for line in _lines(given.lexicon) if line.strip()}
    print(f"  {len(words & known)} of {len(words)} words of {given.lexicon.name} have a 1-gram")
    return words & known


def _lines(path: Path) -> Iterator[str]:
    try:
        for line in read_lines(path):
            yield line.decode("utf-8")
    except (OSError, ValueError) as error:
        raise PrepareError(f"'{path}' cannot be read: {error}") from error


def _order(path: Path) -> int:
    """The highest N of the lines `ngram N=...` that an ARPA file begins with."""
    order = 0
    for number, line in enumerate(_lines(path)):
        if line.startswith("ngram "):
            order = int(line.split()[1].partition("=")[0])
        elif line.startswith("\\1-grams:") or number > 100:
            break
    if not order:
        raise PrepareError(f"'{path}' must be an ARPA file, but has no lines 'ngram N=...'")
    return order


def _unigrams(path: Path) -> Iterator[str]:
    inside = False
    for line in _lines(path):
        if line.startswith("\\"):
            if inside:
                return
            inside = line.startswith("\\1-grams:")
        elif inside and line.strip():
            yield line.split()[1]
