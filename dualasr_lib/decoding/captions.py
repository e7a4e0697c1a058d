"""Final texts of a recording as a file: plain text, JSON, SubRip (SRT) or WebVTT captions.

A long segment becomes several captions of about equal length. They are cut between tokens, never
inside one: at the longest gaps that the token times know, then after particles, which end a phrase
in Japanese as a comma does elsewhere. Segments without text are left out everywhere.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Literal, NamedTuple

from dualasr_lib.decoding.events import Final, TimedToken

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


_LONGEST_GAP = 1.0  # seconds; longer ones are as good
_GAP_WEIGHT = 4.0  # a gap of 0.25 s is worth a line of twice or none of the length it should have
_PHRASE_BONUS = 0.3  # less than a gap of 0.1 s
_PHRASE_ENDS = (
    *("、", "。", ",", ".", "?", "!", "？", "！"),
    *("は", "が", "を", "に", "で", "と", "も", "へ", "ね", "よ", "から", "まで", "けど", "ので"),
)


class Transcript(NamedTuple):
    """All segments of one recording."""

    source: str
    """Its file, for the reader."""
    duration: float
    """Seconds."""
    finals: Sequence[Final]


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
        "text": lambda: "".join(f"{final.text}\n" for final in _spoken(transcript.finals)),
        "json": lambda: _json(transcript),
        "srt": lambda: _srt(list(captions(transcript.finals, max_chars))),
        "vtt": lambda: _vtt(list(captions(transcript.finals, max_chars))),
    }
    if kind not in writers:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, but is {kind!r}")
    return writers[kind]()


def captions(finals: Sequence[Final], max_chars: int = 30) -> Iterator[Caption]:
    """Captions of at most `max_chars` characters each, unless one token alone is longer."""
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
    """Tokens in as few lines as `max_chars` allows, cut where it costs least (`_cut_cost`).

    best[j][k]: the cheapest way to put the first k tokens into j lines, as (cost, last cut).
    """
    sizes = [len(token.text) for token in tokens]
    ends = [0, *accumulate(sizes)]
    cuts = [_cut_cost(tokens, k) for k in range(len(tokens))]
    best: list[dict[int, tuple[float, int]]] = [{0: (0.0, 0)}]
    while len(tokens) not in best[-1]:
        best.append(_one_line_more(best[-1], ends, cuts, max_chars))
    # a line more than the fewest costs a line; as few as that are balanced against their cuts
    count = len(best) - 1
    target = ends[-1] / count
    best = [{0: (0.0, 0)}]
    for _ in range(count):
        best.append(_one_line_more(best[-1], ends, cuts, max_chars, target))
    lines, end = [], len(tokens)
    for ways in reversed(best[1:]):
        begin = ways[end][1]
        lines.append(list(tokens[begin:end]))
        end = begin
    return lines[::-1]


def _one_line_more(
    before: dict[int, tuple[float, int]],
    ends: Sequence[int],
    cuts: Sequence[float],
    max_chars: int,
    target: float | None = None,
) -> dict[int, tuple[float, int]]:
    """The cheapest ways with a line more.

    Args:
        ends: characters of the first k tokens.
        cuts: what it costs to begin a line with token k.
        target: characters that a line should have.
    """
    ways: dict[int, tuple[float, int]] = {}
    for begin, (cost, _) in before.items():
        for end in range(begin + 1, len(ends)):
            size = ends[end] - ends[begin]
            if size > max_chars and end > begin + 1:
                break
            uneven = 0.0 if target is None else ((size - target) / target) ** 2
            total = cost + uneven + (cuts[begin] if begin else 0.0)
            if end not in ways or total < ways[end][0]:
                ways[end] = (total, begin)
    return ways


def _cut_cost(tokens: Sequence[TimedToken], index: int) -> float:
    """What it costs to cut before token `index`: less than 0 where it is good to."""
    if index == 0:
        return 0.0
    before = "".join(token.text for token in tokens[max(0, index - 3) : index]).strip()
    gap = tokens[index].seconds - tokens[index - 1].seconds
    is_phrase = before.endswith(_PHRASE_ENDS) or tokens[index].text.startswith(" ")
    return -_GAP_WEIGHT * min(gap, _LONGEST_GAP) - (_PHRASE_BONUS if is_phrase else 0.0)


def _json(transcript: Transcript) -> str:
    segments = [
        {
            "start": round(final.start_seconds, 3),
            "end": round(final.end_seconds, 3),
            "text": final.text,
            "first_pass_text": final.first_pass_text,
            "reason": final.reason,
            "tokens": [
                {"text": token.text, "start": round(token.seconds, 3)} for token in final.tokens
            ],
        }
        for final in _spoken(transcript.finals)
    ]
    document = {
        "file": transcript.source,
        "duration": round(transcript.duration, 3),
        "segments": segments,
    }
    return json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n"


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
