"""A lexicon and a word n-gram as one language model over tokens. No search, no look-ahead, no k2.

The spellings are a prefix tree over tokens. A token moves down the tree for nothing; where words
end, the text may also go on at the root, for the n-gram's probability of the word. So one question
has several answers, and words with one spelling each give their own. A state is

    node of the tree * num_states of the n-gram + state of the n-gram

M questions, E pairs of a question and a word that ends there.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dualasr_lib.core.files import AnyPath
from dualasr_lib.core.text import fields, read_lines, same_text
from dualasr_lib.lattice.lm import Floats, Integers, LmArcs
from dualasr_lib.lattice.ngram import NgramLm

__all__ = ["LexiconLm"]

_LOG = logging.getLogger(__name__)

_NUM_SHOWN = 5
"""Words that a warning lists."""
_LARGEST = np.iinfo(np.int64).max


class LexiconLm:
    """A `LanguageModel` whose texts are sequences of words of the lexicon.

    Leaves of the tree are no states: nothing follows there but the root.

    Attributes:
        start: the state in which a text begins.
        words: the n-gram.
        entries: each spelling, with the word that it is one of.
    """

    def __init__(
        self,
        words: NgramLm,
        spellings: Sequence[Sequence[int]],
        word_ids: Sequence[int] | None = None,
    ) -> None:
        """
        Args:
            words: the n-gram over word ids.
            spellings: token ids, at least one in each.
            word_ids: the word of each spelling; without it, spelling i is that of word i.
        """
        ids = np.arange(len(spellings)) if word_ids is None else np.array(word_ids, np.int64)
        if len(ids) != len(spellings):
            raise ValueError(f"{len(spellings)} spellings need as many words, got {len(ids)}")
        for word, spelling in zip(ids, spellings):
            if not spelling or min(spelling) < 0:
                raise ValueError(f"word {word} must have tokens, 0 or more, has {list(spelling)}")
        self.start, self.words = words.start, words
        self.entries = tuple(zip(ids.tolist(), map(tuple, spellings)))
        self._num_tokens = 1 + max((max(spelling) for spelling in spellings), default=0)
        self._grow(spellings, ids)

    @classmethod
    def load(cls, lexicon: AnyPath, arpa: AnyPath, symbols: Mapping[str, int]) -> "LexiconLm":
        """Reads a lexicon (lines `word token token ...`) and an ARPA file over its words.

        A word may have several lines. A word that the ARPA file lacks has the probability that
        `NgramLm` gives to unknown words, which a warning says; one that only the ARPA file has is
        never read.

        Args:
            symbols: ids of the tokens by name.

        Raises:
            ValueError: a file cannot be read; names file and line.
        """
        arpa = Path(arpa)
        if not Path(lexicon).is_file():
            raise ValueError(f"'{lexicon}' is missing; it must have lines `word token token ...`")
        names, entries = _read(Path(lexicon), symbols)
        words, spellings = zip(*entries)
        ngram = NgramLm.load(arpa, names, ignore_other_words=True)
        if unknown := [name for name in names if name not in ngram.known]:
            _LOG.warning(
                "%s: %d of its %d words are not in %s and are as unlikely as unknown words: %s%s",
                lexicon, len(unknown), len(names), arpa, ", ".join(unknown[:_NUM_SHOWN]),
                ", ..." if len(unknown) > _NUM_SHOWN else "",
            )  # fmt: skip
        return cls(ngram, spellings, words)

    def advance(self, states: Integers, tokens: Integers) -> LmArcs:
        """Reads tokens (M,) in states (M,)."""
        nodes, histories = np.divmod(states, self.words.num_states)
        wanted = nodes * self._num_tokens + tokens
        at = self._keys.searchsorted(wanted)
        known = (self._keys[at] == wanted) & (tokens >= 0) & (tokens < self._num_tokens)
        source = np.flatnonzero(known)
        nodes, histories = self._children[at[source]], histories[source]
        inner = np.flatnonzero(self._has_children[nodes])
        ending, words = self._endings(nodes)
        complete = self.words.advance(histories[ending], words)
        down = nodes[inner] * self.words.num_states + histories[inner]
        sources = np.concatenate([source[inner], source[ending]])
        order = np.argsort(sources, kind="stable")
        return LmArcs(
            sources[order],
            np.concatenate([down, complete.target])[order],
            np.concatenate([np.zeros(len(inner)), complete.score])[order],
        )

    def final(self, states: Integers) -> Floats:
        """(M,) natural log-probability that the text ends here: only where a word has ended."""
        result = np.full(len(states), -np.inf)
        at_root = np.flatnonzero(states < self.words.num_states)
        result[at_root] = self.words.final(states[at_root])
        return result

    def _endings(self, nodes: Integers) -> tuple[Integers, Integers]:
        """The words (E,) that end in nodes (M,), each with the number (E,) of its node in `nodes`.

        Those of node n are `_words[_first[n] : _first[n + 1]]`.
        """
        counts = self._first[nodes + 1] - self._first[nodes]
        which = np.repeat(np.arange(len(nodes)), counts)
        before = np.cumsum(counts) - counts  # words of the nodes before
        place = np.arange(len(which)) - before[which]
        return which, self._words[self._first[nodes][which] + place]

    def _grow(self, spellings: Sequence[Sequence[int]], word_ids: Integers) -> None:
        """Builds the tree: sorted keys `node * num_tokens + token`, the child of each, words."""
        children: dict[int, int] = {}
        ends = np.zeros(len(spellings), np.int64)
        for i, spelling in enumerate(spellings):
            node = 0
            for token in spelling:
                node = children.setdefault(node * self._num_tokens + token, len(children) + 1)
            ends[i] = node
        keys = np.fromiter(children.keys(), np.int64, len(children))
        order = np.argsort(keys)
        self._keys = np.append(keys[order], _LARGEST)  # so that every search ends on a key
        self._children = np.append(order + 1, 0)
        self._has_children = np.zeros(len(children) + 1, dtype=np.bool_)
        self._has_children[keys // self._num_tokens] = True
        self._words = word_ids[np.argsort(ends, kind="stable")]
        self._first = np.zeros(len(children) + 2, np.int64)
        np.cumsum(np.bincount(ends, minlength=len(children) + 1), out=self._first[1:])


def _read(
    lexicon: Path, symbols: Mapping[str, int]
) -> tuple[dict[str, int], dict[tuple[int, tuple[int, ...]], None]]:
    """Numbers of the words, and the entries: a word's number and token ids, each once."""
    alike = {same_text(name): number for name, number in symbols.items()}
    names: dict[str, int] = {}
    entries: dict[tuple[int, tuple[int, ...]], None] = {}
    for number, line in enumerate(read_lines(lexicon), start=1):
        try:
            word, *tokens = (field.decode() for field in fields(line) or [b""])
            if not word:
                continue  # a blank line
            entry = names.setdefault(word, len(names)), _ids(word, tokens, symbols, alike)
            if entry in entries:
                raise ValueError(f"'{word}' has this spelling twice")
        except ValueError as error:
            raise ValueError(f"{lexicon}:{number}: {error}") from error
        entries[entry] = None
    if not entries:
        raise ValueError(f"'{lexicon}' must have lines `word token token ...`, but has none")
    return names, entries


def _ids(
    word: str, tokens: Sequence[str], symbols: Mapping[str, int], alike: Mapping[str, int]
) -> tuple[int, ...]:
    """Token ids of a spelling; what is no symbol may look like one (be composed otherwise)."""
    if not tokens:
        raise ValueError(f"must be a word and its tokens, is '{word}'")
    found: list[int] = []
    for token in tokens:
        number = symbols.get(token, alike.get(same_text(token)))
        if number is None:
            raise ValueError(f"'{token}' in the spelling of '{word}' is not among the symbols")
        found.append(number)
    return tuple(found)
