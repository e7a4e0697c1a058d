"""A back-off n-gram from an ARPA file, answering thousands of questions at once. No search, no k2.

Back-off is exact: a lower order is asked only where the n-gram of the higher order is not listed.
(An FST with epsilon back-off arcs, as kaldilm writes it, is an approximation: there a backed-off
path competes with the listed n-gram, and wins where it is likelier.)

The n-grams are a trie in three arrays. Node 0 is the empty text; n-gram i of the sorted `keys`,
which are `node of its history * num_words + its last word`, is node i + 1; lower orders come first:

    keys     | 1-grams: history 0 | 2-grams: histories 1..W | 3-grams ...
    node     0 | 1 .. W           | W + 1 ..                |

M questions, G n-grams of one order k, W words of the model (in the order of their 1-grams).
"""

import math
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dualasr_lib.core.files import AnyPath
from dualasr_lib.core.text import fields as split_fields
from dualasr_lib.core.text import read_lines, same_text
from dualasr_lib.lattice.lm import Floats, Integers, LmArcs

__all__ = ["NgramLm"]

_Flags = npt.NDArray[np.bool_]

_START, _END, _UNKNOWN = "<s>", "</s>", "<unk>"
_LARGEST = np.iinfo(np.int64).max
_NUM_SHOWN = 5
"""Words that an error message lists."""


class _Section(NamedTuple):
    """The n-grams of one order k."""

    words: Integers  # (G, k)
    scores: Floats  # (G,) natural log
    backoffs: Floats  # (G,) natural log, 0 where the file has none
    lines: Integers  # (G,) in the file, from 1


class _Arpa(NamedTuple):
    """What an ARPA file says."""

    path: Path
    names: list[str]  # of the W words
    sections: list[_Section]  # order 1 first


class NgramLm:
    """An n-gram as a `LanguageModel`: a state is the longest end of the text that the model knows.

    A state is (the node of) a history that has continuations or a back-off weight. A token without
    a 1-gram is read as `<unk>`; if the model has none either, as a word of its own that has the
    lowest probability of all 1-grams and no longer n-grams. `<s>` and `</s>` cannot be read.

    Attributes:
        order: words in the longest n-grams.
        num_states: states are below it; not each number below it is a state.
        start: the state behind `<s>`.
        known: those of the symbols that have a 1-gram.
    """

    def __init__(self, arpa: _Arpa, symbols: Mapping[str, int]) -> None:
        if min(symbols.values(), default=0) < 0:
            raise ValueError(f"ids of symbols must be 0 or more, one is {min(symbols.values())}")
        index = {name: i for i, name in enumerate(arpa.names)}
        self.order = len(arpa.sections)
        self._num_words = len(arpa.names)
        self.known = frozenset(symbols.keys() & index.keys())
        self._end = index[_END]
        self._words = np.full(max(symbols.values(), default=0) + 1, index[_UNKNOWN], np.int64)
        for name, symbol in symbols.items():
            if name not in (_START, _END):
                self._words[symbol] = index.get(name, index[_UNKNOWN])
        self._build(arpa)
        self.start = int(self._targets[index[_START]])

    @classmethod
    def load(
        cls, path: AnyPath, symbols: Mapping[str, int], ignore_other_words: bool = False
    ) -> "NgramLm":
        """Reads an ARPA file.

        Args:
            symbols: ids of the tokens by name, 0 or more.
            ignore_other_words: leave out n-grams of words that are not in `symbols`, which nobody
                can ask for.

        Raises:
            ValueError: no ARPA file, words that are not in `symbols`; names file and line.
        """
        arpa = _renamed(_read(Path(path)), symbols)
        if _UNKNOWN not in arpa.names:
            arpa = _with_unknown(arpa)
        kept = symbols.keys() | {_START, _END, _UNKNOWN}
        known = np.array([name in kept for name in arpa.names], dtype=np.bool_)
        if not known.all():
            if not ignore_other_words:
                raise ValueError(_unknown_words(arpa, np.flatnonzero(~known)))
            arpa = _only(arpa, known)
        return cls(arpa, symbols)

    def advance(self, states: Integers, tokens: Integers) -> LmArcs:
        """Reads tokens (M,) in states (M,): one answer to each question."""
        at, penalty = self._look_up(states, self._words[tokens])
        return LmArcs(np.arange(len(at)), self._targets[at], self._scores[at] + penalty)

    def final(self, states: Integers) -> Floats:
        """(M,) natural log-probability that the text ends here."""
        at, penalty = self._look_up(states, np.full(len(states), self._end))
        return self._scores[at] + penalty

    def _look_up(self, states: Integers, words: Integers) -> tuple[Integers, Floats]:
        """For each question, the longest n-gram (M,) that answers it, and the weights (M,) of
        backing off to it.
        """
        wanted = states * self._num_words + words
        at = self._keys.searchsorted(wanted)
        penalty = np.zeros(len(at))
        rest = np.flatnonzero(self._keys[at] != wanted)
        state, words = states[rest], words[rest]
        while rest.size:
            penalty[rest] += self._backoffs[state]
            state = self._shorter[state]
            at[rest] = words  # the 1-gram; stays where the history is empty now
            deeper = np.flatnonzero(state)
            rest, state, words = rest[deeper], state[deeper], words[deeper]
            wanted = state * self._num_words + words
            found = self._keys.searchsorted(wanted)
            at[rest] = found
            missing = np.flatnonzero(self._keys[found] != wanted)
            rest, state, words = rest[missing], state[missing], words[missing]
        return at, penalty

    def _build(self, arpa: _Arpa) -> None:
        keys, ends = np.zeros(0, np.int64), [0]
        scores, backoffs = [np.zeros(0)], [np.zeros(1)]
        for section in arpa.sections:
            new, order = _keys(arpa, section, keys)
            keys = np.concatenate([keys, new])
            scores.append(section.scores[order])
            backoffs.append(section.backoffs[order])
            ends.append(len(keys))
        self.num_states = 1 + ends[-2]
        self._scores = np.concatenate(scores)
        self._backoffs = np.concatenate(backoffs)[: self.num_states]
        is_state = np.zeros(1 + len(keys), dtype=np.bool_)
        is_state[: self.num_states] = self._backoffs != 0
        is_state[keys // self._num_words] = True
        self._keys = np.append(keys, _LARGEST)  # so that every search ends on a key
        targets, shorter = _links(self._keys, ends, self._num_words, is_state)
        self._targets, self._shorter = targets[1:], shorter[: self.num_states]


def _keys(arpa: _Arpa, section: _Section, keys: Integers) -> tuple[Integers, Integers]:
    """The sorted keys (G,) of a section, given those of all lower orders, and its order (G,)."""
    num_words = len(arpa.names)
    nodes = np.zeros(len(section.words), np.int64)
    for words in section.words.T[:-1]:
        wanted = nodes * num_words + words
        at = keys.searchsorted(wanted).clip(max=len(keys) - 1)
        if (missing := np.flatnonzero(keys[at] != wanted)).size:
            what = "begins with a history that is no n-gram itself"
            raise ValueError(_complaint(arpa, section, int(missing[0]), what))
        nodes = at + 1
    found = nodes * num_words + section.words[:, -1]
    order = np.argsort(found, kind="stable")
    if (twice := np.flatnonzero(np.diff(found[order]) == 0)).size:
        raise ValueError(_complaint(arpa, section, int(order[twice[0] + 1]), "stands there twice"))
    return found[order], order


def _links(
    keys: Integers, ends: Sequence[int], num_words: int, is_state: _Flags
) -> tuple[Integers, Integers]:
    """For each node the longest end of its n-gram that is a state: itself included, and not."""
    end = np.zeros(len(is_state), np.int64)  # the longest proper end that is a node
    state, shorter = np.zeros_like(end), np.zeros_like(end)
    for first, last in pairwise(ends):
        nodes = np.arange(first + 1, last + 1)
        histories, words = np.divmod(keys[first:last], num_words)
        rest = np.flatnonzero(histories)  # 1-grams have no proper end but the empty one
        history = histories[rest]
        while rest.size:
            history = end[history]
            wanted = history * num_words + words[rest]
            at = keys.searchsorted(wanted)
            end[nodes[rest]] = at + 1
            missing = np.flatnonzero(keys[at] != wanted)
            rest, history = rest[missing], history[missing]
        shorter[nodes] = state[end[nodes]]
        state[nodes] = np.where(is_state[nodes], nodes, shorter[nodes])
    return state, shorter


def _only(arpa: _Arpa, known: _Flags) -> _Arpa:
    """Without the words that are not `known` (W,), and all n-grams that have one."""
    number = np.cumsum(known) - 1
    sections = []
    for section in arpa.sections:
        keep = known[section.words].all(axis=1)
        words, scores, backoffs, lines = (values[keep] for values in section)
        sections.append(_Section(number[words], scores, backoffs, lines))
    return _Arpa(arpa.path, [name for name, keep in zip(arpa.names, known) if keep], sections)


def _renamed(arpa: _Arpa, symbols: Mapping[str, int]) -> _Arpa:
    """With words that only look like a symbol (composed otherwise) by the symbol's name."""
    alike = {same_text(name): name for name in symbols}
    taken = set(arpa.names)
    names = []
    for name in arpa.names:
        other = name if name in symbols else alike.get(same_text(name), name)
        names.append(name if other in taken else other)
        taken.add(names[-1])
    return arpa._replace(names=names)


def _with_unknown(arpa: _Arpa) -> _Arpa:
    """With a 1-gram `<unk>` as likely as the least likely one."""
    words, scores, backoffs, lines = arpa.sections[0]
    lowest = np.delete(scores, arpa.names.index(_START)).min()
    unigrams = _Section(
        np.append(words, [[len(arpa.names)]], axis=0),
        np.append(scores, lowest),
        np.append(backoffs, 0.0),
        np.append(lines, 0),
    )
    return _Arpa(arpa.path, [*arpa.names, _UNKNOWN], [unigrams, *arpa.sections[1:]])


def _read(path: Path) -> _Arpa:
    if not path.is_file():
        raise ValueError(f"'{path}' is missing; it must be an ARPA file")
    lines = enumerate(read_lines(path), start=1)
    counts = _read_counts(path, lines)
    index: dict[bytes, int] = {}
    sections = []
    for order, count in enumerate(counts, start=1):
        section = _read_section(path, lines, count, order, index)
        following = f"\\{order + 1}-grams:" if order < len(counts) else "\\end\\"
        _expect(path, lines, following, f"after {count} {order}-grams, as \\data\\ counts them")
        sections.append(section)
    names = [name.decode() for name in index]
    for special in (_START, _END):
        if special not in names:
            raise ValueError(f"'{path}' must have a 1-gram {special}")
    return _Arpa(path, names, sections)


def _read_counts(path: Path, lines: Iterator[tuple[int, bytes]]) -> list[int]:
    """Reads `\\data\\` and what follows, the title of the 1-grams included."""
    for _, line in lines:
        if split_fields(line) == [b"\\data\\"]:
            break
    else:
        raise ValueError(f"'{path}' must be an ARPA file, but has no line \\data\\")
    counts: list[int] = []
    for number, line in lines:
        text = line.decode(errors="replace").strip()
        if text == "\\1-grams:" and counts:
            return counts
        if found := re.fullmatch(rf"ngram\s+{len(counts) + 1}\s*=\s*(\d{{1,15}})", text):
            counts.append(int(found[1]))
        elif text:
            wanted = f"'ngram {len(counts) + 1}=...'" + (" or '\\1-grams:'" if counts else "")
            raise ValueError(f"{path}:{number}: must be {wanted}, is '{text}'")
    raise ValueError(f"'{path}' ends in \\data\\")


def _read_section(
    path: Path, lines: Iterator[tuple[int, bytes]], count: int, order: int, index: dict[bytes, int]
) -> _Section:
    """Reads `count` n-grams; 1-grams give their words a number in `index`."""
    scores, backoffs, words, numbers = array("d"), array("d"), array("q"), array("q")
    for number, line in islice(lines, count):
        fields = split_fields(line)
        try:
            scores.append(float(fields[0]))
            backoffs.append(float(fields[order + 1]) if len(fields) == order + 2 else 0.0)
            if order == 1:
                fields[1].decode()
                index.setdefault(fields[1], len(index))
            words.extend([index[word] for word in fields[1 : order + 1]])
            numbers.append(number)
            if not order < len(fields) <= order + 2:
                raise IndexError
        except (IndexError, KeyError, ValueError) as error:
            raise ValueError(f"{path}:{number}: {_fault(error, line, count, order)}") from None
    if len(scores) < count:
        raise ValueError(f"'{path}' ends after {len(scores)} of {count} {order}-grams")
    weights = np.array([scores, backoffs]) * math.log(10)
    if not np.isfinite(weights).all():
        number = numbers[int(np.flatnonzero(~np.isfinite(weights).all(axis=0))[0])]
        raise ValueError(f"{path}:{number}: the weights of a {order}-gram must be finite numbers")
    table = np.array(words, np.int64).reshape(count, order)
    return _Section(table, weights[0], weights[1], np.array(numbers, np.int64))


def _fault(error: Exception, line: bytes, count: int, order: int) -> str:
    text = line.decode(errors="replace").strip()
    if isinstance(error, KeyError):
        return f"'{error.args[0].decode(errors='replace')}' in a {order}-gram has no 1-gram"
    if isinstance(error, UnicodeDecodeError):
        return f"must be UTF-8, is '{text}'"
    if isinstance(error, ValueError) and len(split_fields(line)) > order:
        return f"the weights of a {order}-gram must be finite numbers, in '{text}'"
    return f"must be one of {count} {order}-grams, as \\data\\ counts them, is '{text}'"


def _expect(path: Path, lines: Iterator[tuple[int, bytes]], title: str, where: str) -> None:
    for number, line in lines:
        text = line.decode(errors="replace").strip()
        if text and text != title:
            raise ValueError(f"{path}:{number}: must be '{title}' {where}, is '{text}'")
        if text:
            return
    raise ValueError(f"'{path}' must have a line '{title}', but ends before it")


def _unknown_words(arpa: _Arpa, unknown: Integers) -> str:
    shown = ", ".join(f"'{arpa.names[i]}'" for i in unknown[:_NUM_SHOWN])
    more = ", ..." if len(unknown) > _NUM_SHOWN else ""
    line = arpa.sections[0].lines[unknown[0]]
    return f"{arpa.path}:{line}: {len(unknown)} words are not among the symbols: {shown}{more}"


def _complaint(arpa: _Arpa, section: _Section, row: int, what: str) -> str:
    ngram = " ".join(arpa.names[i] for i in section.words[row])
    order = section.words.shape[1]
    return f"{arpa.path}:{section.lines[row]}: the {order}-gram '{ngram}' {what}"
