"""Short-unit words as CSJ writes them, from Open JTalk's analysis, and the phones they are spoken
with.

The list of words that is spoken is the list that is written, so text and sound cannot disagree.
Parts of speech are Open JTalk's (IPA style), only named as in CSJ; nobody downstream reads them.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

__all__ = [
    "Node",
    "Word",
    "clauses",
    "filler_node",
    "labels",
    "num_moras",
    "openjtalk",
    "phone_counts",
    "plain_word",
    "split_moras",
    "tag_numerals",
]

Node = dict[str, Any]
"""One entry of `pyopenjtalk.run_frontend`."""

_MORA = re.compile(r"[ァ-ヴ][ァィゥェォャュョヮ]?|ー")
_SINGLE_PHONE = frozenset("アイウエオヲァィゥェォンッー")
_PAUSES = frozenset("、。！？・")
_KANA = re.compile(r"[ァ-ヴー]+")
_DEVOICING = str.maketrans("", "", "’'")
_PHRASE_POSITION = re.compile(r"@(\d+)_")
_MAX_PHRASE_POSITION = 7
_DIGITS = "一二三四五六七八九"
_UNITS = {"十": 10, "百": 100, "千": 1000}
_NUMERAL = re.compile(rf"([{_DIGITS}十百千][{_DIGITS}十百千万]*)(時半|時間|時|分|枚|年|円|人)?")
_NOT_DIGITS = frozenset({"一人", "二人"})
"""Read ひとり, ふたり: not numbers with a counter."""
_FULL_WIDTH = str.maketrans("0123456789", "０１２３４５６７８９")


class Word(NamedTuple):
    """One word of a transcript."""

    surface: str
    """Written form with CSJ's tags, `(F えー)`."""
    text: str
    """The same without tags: what the disfluent transcript shows."""
    pron: str
    """Katakana pronunciation with tags."""
    pos: str
    conjugation: str
    form: str
    info: str
    lemma: str
    reading: str
    node: Node
    """What is given to the synthesiser."""


def clauses(text: str) -> list[list[Node]] | None:
    """Open JTalk's analysis of `text`, cut at punctuation; None if a token has no reading."""
    result: list[list[Node]] = [[]]
    for node in openjtalk().run_frontend(text, use_sudachi_kanji_yomi=False):
        if node["pron"] in _PAUSES or node["string"] in _PAUSES:
            result.append([])
        elif node["mora_size"] == 0 or not _KANA.fullmatch(_voiced(node["pron"])):
            return None
        else:
            result[-1].append(node)
    return [clause for clause in result if clause]


def plain_word(node: Node) -> Word:
    """The word of one node, without any tag."""
    pos, group = node["pos"], node["pos_group1"]
    info = ""
    if pos == "フィラー":
        pos = "感動詞"
    elif pos == "助詞":
        info = group
    elif pos == "名詞" and group == "代名詞":
        pos = "代名詞"
    elif pos == "名詞" and group == "固有名詞":
        info = group
    elif pos == "名詞" and group == "接尾":
        pos = "接尾辞"
    return Word(
        surface=node["string"],
        text=node["string"],
        pron=_voiced(node["pron"]),
        pos=pos,
        conjugation=node["ctype"].strip("*").replace("・", ""),
        form=node["cform"].strip("*"),
        info=info,
        lemma=node["orig"],
        reading=node["read"],
        node=node,
    )


def filler_node(text: str, pron: str) -> Node:
    """A node for what Open JTalk did not analyse; it starts an accent phrase of its own."""
    star = dict.fromkeys(
        ("pos_group1", "pos_group2", "pos_group3", "ctype", "cform", "chain_rule"), "*"
    )
    named = {"string": text, "pos": "フィラー", "orig": text, "read": pron, "pron": pron}
    return {**star, **named, "acc": 0, "mora_size": num_moras(pron), "chain_flag": 0}


def split_moras(pron: str) -> list[str]:
    """ショーユ -> ショ ー ユ."""
    return _MORA.findall(_voiced(pron))


def num_moras(pron: str) -> int:
    """Number of morae of a katakana pronunciation."""
    return len(split_moras(pron))


def phone_counts(words: Sequence[Word]) -> list[int]:
    """Phones of each word: one for a vowel, ヲ, ン, ッ and ー, two for any other mora."""
    return [
        sum(1 if mora in _SINGLE_PHONE else 2 for mora in split_moras(word.node["pron"]))
        for word in words
    ]


def labels(words: Sequence[Word]) -> list[str]:
    """HTS full-context labels, a silence at both ends; the words make one utterance.

    The position of an accent phrase is written as 7 at most: the voice NIT ATR503 M001 knows no
    later one, takes such phones for silence and makes each of them half a second long.


    Raises ValueError when Open JTalk makes other phones than `phone_counts` says: the times of the
    words would be wrong.
    """
    nodes = [word.node for word in words]
    nodes[0] = {**nodes[0], "chain_flag": -1}
    result: list[str] = openjtalk().make_label(nodes)
    if len(result) != sum(phone_counts(words)) + 2:
        text = "".join(word.text for word in words)
        raise ValueError(
            f"{text!r} must have {sum(phone_counts(words))} phones, but has {len(result) - 2}"
        )
    return [_PHRASE_POSITION.sub(_capped, label) for label in result]


def tag_numerals(words: Sequence[Word], chosen: Sequence[bool]) -> list[Word]:
    """Numbers with CSJ's tag, `(A 二;２)`, also across words and before a counter: `(A 三;３)枚`.

    `chosen[k]` says whether a number that starts at word k is tagged at all.
    """
    result = list(words)
    start = 0
    while start < len(words):
        end = start
        while end < len(words) and _numeral(words[end]) and not _counter(words[end]):
            end += 1
        if end < len(words) and _numeral(words[end]):
            end += 1
        if end > start and chosen[start]:
            _tag_run(result, start, end)
        start = max(end, start + 1)
    return result


def _capped(match: re.Match[str]) -> str:
    return f"@{min(_MAX_PHRASE_POSITION, int(match[1]))}_"


def _tag_run(words: list[Word], start: int, end: int) -> None:
    counter = _counter(words[end - 1])
    digits = "".join(word.text for word in words[start:end])
    arabic = str(_value(digits[: len(digits) - len(counter)])).translate(_FULL_WIDTH)
    last = words[end - 1]
    number = last.surface[: len(last.surface) - len(counter)]
    words[end - 1] = last._replace(surface=f"{number};{arabic}){counter}")
    words[start] = words[start]._replace(surface="(A " + words[start].surface)


def _numeral(word: Word) -> bool:
    found = _NUMERAL.fullmatch(word.text)
    if not found or word.surface != word.text or word.text in _NOT_DIGITS:
        return False
    return bool(found[2]) or word.node["pos_group1"] == "数"


def _counter(word: Word) -> str:
    found = _NUMERAL.fullmatch(word.text)
    return (found[2] or "") if found else ""


def _value(kanji: str) -> int:
    """二千三百 -> 2300."""
    total = section = digit = 0
    for character in kanji:
        if character in _DIGITS:
            digit = digit * 10 + _DIGITS.index(character) + 1
        elif character in _UNITS:
            section, digit = section + (digit or 1) * _UNITS[character], 0
        else:
            total, section, digit = total + (section + digit or 1) * 10000, 0, 0
    return total + section + digit


def _voiced(pron: str) -> str:
    return pron.translate(_DEVOICING)


def openjtalk() -> ModuleType:
    """pyopenjtalk; its notice that an optional model is off (printed on import) is left out."""
    if "pyopenjtalk" not in sys.modules:
        notice = io.StringIO()
        with contextlib.redirect_stdout(notice), contextlib.redirect_stderr(notice):
            import pyopenjtalk  # noqa: F401
        lines = [x for x in notice.getvalue().splitlines() if "onnxruntime" not in x.lower()]
        print("\n".join(x for x in lines if "ONNX Runtime" not in x), end="", file=sys.stderr)
    return sys.modules["pyopenjtalk"]
