"""CSJ surface tags -> plain text, in two modes (disfluent, fluent), by a table of rules.

CSJ transcripts carry bracketed tags inside the words: `(F えー)` is a filler, `(W
ギーツ;ギジュツ)` a slip of the tongue with the intended word behind the semicolon. A rule says
which alternative of its tag is kept. The disfluent mode gives the text (and the tag of every
character) of `lhotse prepare csj`; what lhotse gets silently wrong (unknown tags, unbalanced
brackets, text cut at a comma) is an error here. Left out: segments and times (`data/sdb.py`), the
icefall modes `number` and `symbol`.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

__all__ = [
    "MARKS",
    "RULES",
    "Mode",
    "ParsedText",
    "Rule",
    "TextError",
    "clean_surface",
    "parse_surface",
    "raw_surfaces",
]

Mode = Literal["disfluent", "fluent"]


class TextError(ValueError):
    """A surface that cannot be read; `position` is the 0-based character at fault."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


class Rule(NamedTuple):
    """Which alternative of a tag is kept: 0 the first, 1 the one behind `;` or `,` (none there:
    nothing).
    """

    tag: str
    meaning: str
    disfluent: int
    fluent: int
    example: str
    disfluent_text: str
    fluent_text: str


RULES: tuple[Rule, ...] = (
    Rule("F", "filler", 0, 1, "(F えー)", "えー", ""),
    Rule("D", "word fragment", 0, 1, "(D だ)", "だ", ""),
    Rule("D2", "repaired particle", 0, 1, "(D2 が)", "が", ""),
    Rule("?", "transcriber unsure; (?) is unintelligible", 0, 0, "(? 字数)", "字数", "字数"),
    Rule("?,", "unsure between alternatives", 0, 0, "(? 次数,実数)", "次数", "次数"),
    Rule("M", "word mentioned, not used", 0, 0, "(M は)", "は", "は"),
    Rule(
        "O",
        "foreign or old language",
        0,
        0,
        "(O ザッツファイン)",
        "ザッツファイン",
        "ザッツファイン",
    ),
    Rule("R", "name masked for privacy", 0, 0, "(R ××)", "××", "××"),
    Rule("X", "not what the reading task asked for", 0, 0, "(X よみ)", "よみ", "よみ"),
    Rule("A", "letters: reading;full-width letters", 1, 1, "(A シーディー;ＣＤ)", "ＣＤ", "ＣＤ"),
    Rule("A_num", "tag A that begins with a numeral", 0, 0, "(A 二千;２０００)", "二千", "二千"),
    Rule(
        "K", "kanji broken by a filler: spoken;meant", 1, 1, "(K たち(F えー)ばな;橘)", "橘", "橘"
    ),
    Rule("W", "slip: spoken;meant", 1, 1, "(W ギーツ;ギジュツ)", "ギジュツ", "ギジュツ"),
    Rule("B", "misread: spoken;meant", 0, 0, "(B シブタイ;ジュータイ)", "シブタイ", "シブタイ"),
    Rule("笑", "said while laughing", 0, 0, "(笑 それ)", "それ", "それ"),
    Rule("泣", "said while crying", 0, 0, "(泣 それ)", "それ", "それ"),
    Rule("咳", "said while coughing", 0, 0, "(咳 それ)", "それ", "それ"),
    Rule("L", "whispered", 0, 0, "(L それ)", "それ", "それ"),
)
"""The tags of CSJ. Decisions: lhotse's `DECISIONS` (disfluent) and icefall's `fluent.ini`
(fluent).
"""

MARKS: tuple[str, ...] = (
    "FV",
    "VN",
    "H",
    "Q",
    "笑",
    "咳",
    "息",
    "泣",
    "フロア発話",
    "フロア笑",
    "拍手",
)
MARKS += ("デモ", "ベル", "朗読間違い", "雑音")
"""Events written as `<name>`; they are deleted wherever they stand."""

_DECISIONS: dict[str, dict[str, int]] = {
    "disfluent": {rule.tag: rule.disfluent for rule in RULES},
    "fluent": {rule.tag: rule.fluent for rule in RULES},
}
_MARK = re.compile("|".join(f"<{mark}>" for mark in MARKS))
_NUMERALS = frozenset("０零一二三四五六七八九十百千．")  # a tag A that begins so is A_num
_WORD_TAGS = frozenset("笑泣咳")  # tags that are no ASCII letters
_DELETED_WHEN_FLUENT = frozenset(rule.tag for rule in RULES if rule.disfluent != rule.fluent)


class ParsedText(NamedTuple):
    """Plain text of one unit and, for each of its characters, the tags around it, outermost first
    ("M/F").
    """

    text: str
    tags: tuple[str, ...]

    @property
    def spoken_fluently(self) -> tuple[bool, ...]:
        """For each character: no filler, fragment or repair tag around it."""
        return tuple(_DELETED_WHEN_FLUENT.isdisjoint(tag.split("/")) for tag in self.tags)


class _Bracket(NamedTuple):
    tag: str
    choices: "tuple[tuple[_Piece, ...], ...]"


class _Piece(NamedTuple):
    content: str | _Bracket
    tag: str  # the tag of the enclosing bracket, as far as it was read at this point


class _Char(NamedTuple):
    char: str
    tag: str


def clean_surface(field: str) -> str:
    """The surface column of an SDB row -> the form that `parse_surface` reads, as lhotse cleans it.

    Marks are deleted, `んー` becomes `ん`, spaces become `_`, a trailing `・` is dropped.
    """
    for _ in range(2):  # twice for んーー
        field = field.replace("んー", "ん").replace("ンー", "ン")
    return _MARK.sub("", field).replace(" ", "_").rstrip("・")


def raw_surfaces(raw: str) -> str:
    """lhotse's `custom["raw"]` (`surface+morph+pron` words) -> surfaces separated by one space."""
    words = (word.split("+")[0] for word in raw.split(" "))
    return " ".join(word for word in words if word)


def parse_surface(surface: str, mode: Mode = "disfluent") -> ParsedText:
    """Cleaned surfaces of one unit, words separated by a space -> text without spaces, with tags.

    Raises:
        TextError: unbalanced bracket, unknown tag, or an alternative (`,` `;`) outside a tag.
    """
    body, end = _read(surface, 0, depth=0)
    if end < len(surface):
        raise TextError(f"closing bracket without an opening one in '{surface}'", end)
    chars = [item for item in _render(body.choices[0], _DECISIONS[mode]) if item.char != " "]
    return ParsedText("".join(item.char for item in chars), tuple(item.tag for item in chars))


def _read(text: str, start: int, depth: int) -> tuple[_Bracket, int]:
    """Read one bracket's content from `start`; returns it and the index of its closing bracket
    (or the end).
    """
    tag, choices, i = "", [[]], start  # type: str, list[list[_Piece]], int
    while i < len(text) and text[i] != ")":
        char = text[i]
        if char == "(":
            child, i = _read(text, i + 1, depth + 1)
            choices[-1].append(_Piece(child, tag))
        elif char in ";,":
            if not depth:
                raise TextError(f"'{char}' outside a tag in '{text}'", i)
            choices.append([])
            tag += "," if char == "," and "," not in tag else ""
        elif char == "_":
            pass
        elif (char.isascii() and char != " ") or (not tag and depth and char in _WORD_TAGS):
            tag += char
        else:
            choices[-1].append(_Piece(char, tag))
        i += 1
    if depth and i == len(text):
        raise TextError(f"bracket is never closed in '{text}'", start - 1)
    if depth and tag and tag not in _DECISIONS["disfluent"]:
        raise TextError(f"unknown tag '{tag}' in '{text}'", start - 1)
    return _Bracket(tag, tuple(tuple(choice) for choice in choices)), i


def _render(pieces: tuple[_Piece, ...], decisions: dict[str, int]) -> Iterator[_Char]:
    for piece in pieces:
        if isinstance(piece.content, str):
            yield _Char(piece.content, piece.tag)
            continue
        for item in _decide(piece.content, decisions):
            yield _Char(item.char, f"{piece.tag}/{item.tag}" if piece.tag else item.tag)


def _decide(bracket: _Bracket, decisions: dict[str, int]) -> list[_Char]:
    rendered = [list(_render(choice, decisions)) for choice in bracket.choices]
    if not bracket.tag:  # a bare bracket, as lhotse: the last alternative
        return rendered[-1]
    numeral = bracket.tag == "A" and bool(rendered[0]) and rendered[0][0].char in _NUMERALS
    kept = decisions["A_num" if numeral else bracket.tag]
    return rendered[kept] if kept < len(rendered) else []
