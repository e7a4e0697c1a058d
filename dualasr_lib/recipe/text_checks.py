"""Doubts about texts, lengths and splits: what training would see, looked at without its audio."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from statistics import median
from typing import NamedTuple

from dualasr_lib.core.ctc_frames import ctc_frames
from dualasr_lib.core.rates import encoder_frames
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.metrics.units import characters
from dualasr_lib.recipe.source import Defect

__all__ = ["Utterance", "doubts", "characters_per_second"]

_SHORT, _LONG = 0.2, 30.0
"""Seconds."""
_FAST, _SLOW, _ENOUGH = 2.0, 0.25, 10
"""Times the median of characters per second, of so many utterances at least."""
_TEXT_LENGTH = 20
"""Characters of a text that two people do not say by chance."""
_ROW = 5
_OVERLAP = 0.1
_FRAMES_PER_SECOND = 100
_MISREAD = re.compile("[\u00c2\u00c3\u00e2\u00e3][\u0080-\u00bf]|\u00e2\u20ac|\ufffd")
"""UTF-8 that was read as Latin-1 and written again, or what a decoder puts where it fails."""
_MARKUP = re.compile(r"<[^>]*>|\[[^\]]*\]|\{[^}]*\}|\(\([^)]*\)\)")


class Utterance(NamedTuple):
    """An utterance as stage 3 makes it."""

    id: str
    split: str
    text: str
    seconds: float
    speaker: str
    recording_id: str
    channel: int
    start: float


def doubts(
    utterances: Sequence[Utterance], train: str, tokenizer: Tokenizer | None
) -> Iterator[Defect]:
    """All doubts; `train` is the split to train on."""
    for utterance in utterances:
        yield from _lengths(utterance, tokenizer)
        yield from _text(utterance)
    yield from _rates(utterances)
    yield from _against_training(utterances, train)
    yield from _overlaps(utterances)


def characters_per_second(utterance: Utterance) -> float:
    """Without white space."""
    return len(characters(utterance.text)) / utterance.seconds


def _lengths(utterance: Utterance, tokenizer: Tokenizer | None) -> Iterator[Defect]:
    seconds = utterance.seconds
    if seconds < _SHORT:
        yield Defect("too-short", utterance.id, f"{seconds:.3f} s")
    if seconds > _LONG:
        yield Defect("too-long", utterance.id, f"{seconds:.1f} s")
    if tokenizer is not None:
        tokens = tokenizer.encode(utterance.text)
        frames = encoder_frames(round(seconds * _FRAMES_PER_SECOND))
        if frames < ctc_frames(tokens):
            detail = f"{len(tokens)} tokens, {frames} frames"
            yield Defect("too-many-tokens", utterance.id, detail)


def _text(utterance: Utterance) -> Iterator[Defect]:
    text = utterance.text
    odd = {char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Co", "Cn", "Cs")}
    odd |= set(_MISREAD.findall(text))
    if odd:
        yield Defect("odd-characters", utterance.id, " ".join(sorted(map(ascii, odd))))
    if found := _MARKUP.findall(text):
        yield Defect("markup", utterance.id, " ".join(found))
    if any(char.isdigit() for char in text):
        yield Defect("digits", utterance.id, "".join(c for c in text if c.isdigit()))
    runs = ((word, len(list(run))) for word, run in groupby(text.split()))
    if many := [f"{word} x {length}" for word, length in runs if length >= _ROW]:
        yield Defect("repeated-words", utterance.id, ", ".join(many))


def _rates(utterances: Sequence[Utterance]) -> Iterator[Defect]:
    rates = {utterance.id: characters_per_second(utterance) for utterance in utterances}
    if len(rates) < _ENOUGH:
        return
    usual = median(rates.values())
    for id_, rate in rates.items():
        if rate > _FAST * usual or rate < _SLOW * usual:
            kind = "fast-speech" if rate > usual else "slow-speech"
            yield Defect(kind, id_, f"{rate:.1f} characters per second, median {usual:.1f}")


def _against_training(utterances: Iterable[Utterance], train: str) -> Iterator[Defect]:
    """What other splits share with training, and what they have that training lacks."""
    given = list(utterances)
    trained = [utterance for utterance in given if utterance.split == train]
    others = [utterance for utterance in given if utterance.split != train]
    known = {char for utterance in trained for char in utterance.text}
    texts = {utterance.text: utterance.id for utterance in trained}
    speakers = {utterance.speaker for utterance in trained}
    for utterance in others:
        if unknown := {char for char in utterance.text if char not in known}:
            yield Defect("unknown-characters", utterance.id, " ".join(sorted(unknown)))
        if len(utterance.text) >= _TEXT_LENGTH and utterance.text in texts:
            detail = f"{utterance.split}: the text of {texts[utterance.text]}"
            yield Defect("text-in-splits", utterance.id, detail)
    shared = {(u.speaker, u.split) for u in others if u.speaker in speakers}
    for speaker, split in sorted(shared):
        yield Defect("speaker-in-splits", speaker, f"in {train} and {split}")


def _overlaps(utterances: Iterable[Utterance]) -> Iterator[Defect]:
    ordered = sorted(utterances, key=lambda u: (u.recording_id, u.channel, u.start, u.id))
    for first, second in pairwise(ordered):
        same = (first.recording_id, first.channel) == (second.recording_id, second.channel)
        seconds = first.start + first.seconds - second.start
        if same and seconds > _OVERLAP:
            yield Defect("overlap", second.id, f"{seconds:.2f} s with {first.id}")
