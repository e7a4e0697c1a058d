"""When a sentence of running speech is over: rules on trailing silence and length; and where
speech without a pause is cut.

The three rules of Kaldi's online decoders and their clients, and one that spares most long
segments a cut in running speech. Silence is the time in which a search has emitted no token; left
out: voice activity detection on the audio itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Literal

__all__ = ["EndReason", "EndpointConfig", "cut_frame", "endpoint", "is_near"]

_BLANK = 0

EndReason = Literal["silence", "pause", "length", "end"]
"""Why a segment ended: nothing was said, a sentence was over, it became too long, no more audio."""


@dataclass(frozen=True, kw_only=True)
class EndpointConfig:
    """The rules; math.inf turns one off."""

    silence_seconds: float = 2.4
    """Trailing silence that ends a segment even if nothing was said in it (sherpa's rule 1)."""
    pause_seconds: float = 0.8
    """Trailing silence that ends a segment in which something was said (rule 2; 1.2 s in sherpa,
    for dialogues: speakers of monologues pause for less).
    """
    long_seconds: float = 8.0
    """Length from which on a segment with speech ends at the next breath."""
    breath_seconds: float = 0.4
    """Trailing silence that is such a breath."""
    lead_seconds: float = 0.4
    """Silence that a segment hands over to the next one, at most half of what ended it."""
    max_seconds: float = 20.0
    """Length that a segment never exceeds (rule 3); bounds memory and the second pass."""
    cut_seconds: float = 5.0
    """The last seconds of a segment that became too long, in which the longest gap between two
    tokens is looked for; it is cut there. At most half of the segment is searched.
    """

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ValueError(f"`{field.name}` must be greater than 0, but is {value}")


def endpoint(
    num_frames: int, last_token_frame: int | None, config: EndpointConfig, frame_seconds: float
) -> EndReason | None:
    """Why the segment is over now, or None while it goes on.

    Args:
        num_frames: encoder frames that the search has heard of the segment.
        last_token_frame: frame at which its last token was emitted; None before the first.
        frame_seconds: duration of an encoder frame.
    """
    # rounded: 0.04 is no binary fraction, and 25 frames of it must be one second
    length = round(num_frames * frame_seconds, 6)
    silence = length
    if last_token_frame is not None:
        silence = round((num_frames - 1 - last_token_frame) * frame_seconds, 6)
        is_long = length >= config.long_seconds
        if silence >= (config.breath_seconds if is_long else config.pause_seconds):
            return "pause"
    if silence >= config.silence_seconds:
        return "silence"
    return "length" if length >= config.max_seconds else None


def is_near(
    num_frames: int, silence: float, config: EndpointConfig, frame_seconds: float, more: int
) -> bool:
    """Whether the pause that ends a segment with speech may be over when `more` frames have come.

    Args:
        num_frames: encoder frames that the search has heard of the segment.
        silence: seconds since its last token.
    """
    length = round((num_frames + more) * frame_seconds, 6)
    needed = config.breath_seconds if length >= config.long_seconds else config.pause_seconds
    return round(silence + more * frame_seconds, 6) >= needed


def cut_frame(best: Sequence[int]) -> int:
    """The frame before which speech is cut, 1 <= result <= S: the middle of the longest run of
    blanks; of equals the last one.

    Without a blank it is cut where the last two different tokens meet, or else at the end.

    Args:
        best: the most probable token of each of the S >= 1 last frames.
    """
    size = len(best)
    longest, cut, position = 0, 0, 0
    for token, group in groupby(best):
        length = len(list(group))
        if token == _BLANK and length >= longest:
            longest, cut = length, position + (length + 1) // 2
        position += length
    if longest:
        return max(1, cut)
    return next((i for i in range(size - 1, 0, -1) if best[i - 1] != best[i]), size)
