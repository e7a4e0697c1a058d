"""Final texts of a recording as a file: plain text, JSON, SubRip (SRT) or WebVTT captions.

A long segment becomes several captions of about equal length. They are cut between tokens, never
inside one: at the longest gaps that the token times know, then after particles, which end a phrase
in Japanese as a comma does elsewhere. Segments without text are left out everywhere.
"""

import json
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from statistics import median
from typing import Literal, NamedTuple

from dualasr_lib.decoding.events import Final, TimedToken
from dualasr_lib.metrics.calibration import Calibration, judge

__all__ = [
    "FORMATS",
    "Caption",
    "Format",
    "Transcript",
    "captions",
    "render",
]

Format = Literal["text", "json", "srt", "vtt"]
FORMATS: tuple[Format, ...] = ("text", "json", "srt", "vtt")

_HOLD_SECONDS = (
    0.6  # a token is emitted at its beginning; the last one of a caption stays this long
)


_GAP_SECONDS = 0.15  # more than from token to token in the middle: a pause that can be heard
_GAP_SPREADS = 6  # in a speech of uneven pace as many times what gaps differ by from the middle one
_BEFORE_KANA = 3  # times that, before what follows a kanji in hiragana: an ending or a particle
_INSIDE_WORD = 6.0
_PHRASE_BONUS = 0.3
_SEPARATORS = ("、", "。", ",", ".", "?", "!", "？", "！", " ", "　")
_PARTICLES = (
    *("は", "が", "を", "に", "で", "と", "も", "へ", "ね", "よ", "から", "まで", "けど", "ので"),
)
_PREFIXES = ("お", "ご")
_NEVER_FIRST = frozenset("ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮんンーー々、。,.?!？！")
_NUMERALS = frozenset("〇一二三四五六七八九十百千万億兆0123456789０１２３４５６７８９")


class Transcript(NamedTuple):
    """All segments of one recording."""

    source: str
    """Its file, for the reader."""
    duration: float
    """Seconds."""
    segments: Sequence[Final]
    """In order, those without text included."""
    calibration: Calibration | None = None
    """Of the confidences in `segments`; None: they are bare posteriors."""

    @property
    def text(self) -> str:
        """A line for each segment in which something was said."""
        return "\n".join(final.text for final in _spoken(self.segments))


class Caption(NamedTuple):
    """One line of text on the screen."""

    start_seconds: float
    end_seconds: float
    text: str


def render(transcript: Transcript, kind: Format, max_chars: int = 30) -> str:
    """The content of a file; ends with a newline unless it is empty.

    Args:
        max_chars: of a caption (srt and vtt), as `captions` says.
    """
    writers: dict[Format, Callable[[], str]] = {
        "text": lambda: f"{transcript.text}\n" if transcript.text else "",
        "json": lambda: _json(transcript),
        "srt": lambda: _srt(list(captions(transcript.segments, max_chars))),
        "vtt": lambda: _vtt(list(captions(transcript.segments, max_chars))),
    }
    if kind not in writers:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, but is {kind!r}")
    return writers[kind]()


def captions(finals: Sequence[Final], max_chars: int = 30) -> Iterator[Caption]:
    """Captions of at most `max_chars` characters each, unless one token alone is longer; more than
    the fewest where a word would have to be cut else.
    """
    if max_chars < 1:
        raise ValueError(f"`max_chars` must be at least 1, but is {max_chars}")
    for final in _spoken(finals):
        lines = _lines(final.tokens, max_chars)
        for line, following in zip(lines, [*lines[1:], None]):
            limit = final.end_seconds if following is None else following[0].seconds
            start = line[0].seconds
            end = max(min(line[-1].seconds + _HOLD_SECONDS, limit), start + 0.001)
            yield Caption(start, end, "".join(token.text for token in line).strip())


def _spoken(finals: Sequence[Final]) -> list[Final]:
    return [final for final in finals if final.text.strip()]


def _lines(tokens: Sequence[TimedToken], max_chars: int) -> list[list[TimedToken]]:
    """Tokens in lines of at most `max_chars` unless one token alone is longer: the cheapest way, if
    each line costs 1, each cut what `_cut_costs` says, and a line of uneven length a little.
    """
    ends = [0, *accumulate(len(token.text) for token in tokens)]
    target = ends[-1] / -(-ends[-1] // max_chars)
    costs = _cut_costs(tokens)
    cheapest = [(0.0, 0)]  # of the first k tokens: cost, and where the last line begins
    for end in range(1, len(ends)):
        ways = []
        for begin in range(end - 1, -1, -1):
            size = ends[end] - ends[begin]
            if size > max_chars and begin < end - 1:
                break
            cost = 1 + ((size - target) / target) ** 2 + costs[begin]
            ways.append((cheapest[begin][0] + cost, begin))
        cheapest.append(min(ways))
    lines, end = [], len(tokens)
    while end:
        begin = cheapest[end][1]
        lines.append(list(tokens[begin:end]))
        end = begin
    return lines[::-1]


def _cut_costs(tokens: Sequence[TimedToken]) -> list[float]:
    """What it costs to begin a line with each token: most of all inside a word, which neither a gap
    that is longer than others nor the script says to end there. An additional line is cheaper than
    that, and dearer than a gap is good.
    """
    gaps = [b.seconds - a.seconds for a, b in pairwise(tokens)]
    pace = median(gaps) if gaps else 0.0
    spread = median(abs(gap - pace) for gap in gaps) if gaps else 0.0
    audible = max(_GAP_SECONDS, _GAP_SPREADS * spread)
    costs = [0.0]
    for index, gap in enumerate(gaps, start=1):
        before = "".join(token.text for token in tokens[max(0, index - 3) : index])
        border = _border(before, tokens[index].text)
        longer = max(0.0, gap - pace)
        heard = min(1.0, longer * border.hearing / audible)
        cost = _INSIDE_WORD * (1 - heard) * (1 - border.by_script) - 0.5 * min(1.0, longer)
        costs.append(cost - (_PHRASE_BONUS if border.ends_phrase else 0.0))
    return costs


class _Border(NamedTuple):
    """What the script says of the place between two tokens."""

    by_script: float
    """How sure it is that a word begins there, from 0 to 1."""
    hearing: float = 1.0
    """How much a gap says there."""
    ends_phrase: bool = False


def _border(before: str, after: str) -> _Border:
    """In Japanese a kanji or katakana after hiragana begins a word: hiragana before it are endings
    and particles of the word before. In hiragana alone only particles tell, and not for sure.
    """
    if not before or not after:  # a token without text, as a lone space is
        return _Border(0.0)
    if before.endswith(_SEPARATORS) or after.startswith((" ", "　")):
        return _Border(1.0, ends_phrase=True)
    if after[:1] in _NEVER_FIRST or (before[-1:] in _NUMERALS and after[:1] in _NUMERALS):
        return _Border(0.0, hearing=0.0)
    left, right = _script(before[-1:]), _script(after[:1])
    is_particle = before.endswith(_PARTICLES)
    if left == right:
        is_kana = left == "hiragana"
        return _Border(0.3, ends_phrase=True) if is_kana and is_particle else _Border(0.0)
    if right == "hiragana":
        return _Border(0.0, hearing=1 / _BEFORE_KANA)
    if left == "hiragana":
        is_prefix = before.endswith(_PREFIXES)
        return _Border(0.0) if is_prefix else _Border(0.7, ends_phrase=is_particle)
    return _Border(0.3)


def _script(char: str) -> str:
    """The first word of Unicode's name of a character: hiragana, katakana, cjk, latin ..."""
    return unicodedata.name(char, "").partition(" ")[0].lower()


def _json(transcript: Transcript) -> str:
    segments = [
        {
            "start": round(final.start_seconds, 3),
            "end": round(final.end_seconds, 3),
            "text": final.text,
            "first_pass_text": final.first_pass_text,
            "reason": final.reason,
            "confidence": _share(judge(final.confidences, transcript.calibration).confidence),
            "tokens": [
                {
                    "text": token.text,
                    "start": round(token.seconds, 3),
                    "confidence": _share(token.confidence),
                }
                for token in final.tokens
            ],
        }
        for final in _spoken(transcript.segments)
    ]
    sure = [value for final in transcript.segments for value in final.confidences]
    verdict = judge(sure, transcript.calibration)
    document = {
        "file": transcript.source,
        "duration": round(transcript.duration, 3),
        "confidence": _share(verdict.confidence),
        "calibrated": verdict.is_calibrated,
        "out_of_domain": verdict.out_of_domain,
        "segments": segments,
    }
    return json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n"


def _share(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _srt(lines: Sequence[Caption]) -> str:
    return "".join(
        f"{number}\n{_times(line, ',')}\n{line.text}\n\n" for number, line in enumerate(lines, 1)
    )


def _vtt(lines: Sequence[Caption]) -> str:
    cues = (f"{_times(line, '.')}\n{_escaped(line.text)}\n\n" for line in lines)
    return "WEBVTT\n\n" + "".join(cues)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _times(line: Caption, point: str) -> str:
    return f"{_stamp(line.start_seconds, point)} --> {_stamp(line.end_seconds, point)}"


def _stamp(seconds: float, point: str) -> str:
    """hh:mm:ss and milliseconds."""
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    whole, milliseconds = divmod(milliseconds, 1000)
    return f"{hours:02d}:{minutes:02d}:{whole:02d}{point}{milliseconds:03d}"
