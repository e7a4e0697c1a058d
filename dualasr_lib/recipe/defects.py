"""What can be wrong with recordings and texts, by name: what it is, and what becomes of it."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

__all__ = ["KINDS", "Effect", "Kind"]

Effect = Literal["left out", "skipped in training", "kept"]


class Kind(NamedTuple):
    """A kind of defect or doubt."""

    effect: Effect
    """What preparing and training do with it; stage 1 leaves out only what --allow-bad covers."""
    what: str


KINDS: Mapping[str, Kind] = {
    "missing-audio": Kind("left out", "the audio file that is named is not there"),
    "unreadable-audio": Kind("left out", "a file that is no audio, is damaged or has no samples"),
    "unusable-cut": Kind("left out", "a cut that is mixed, padded, or not of one audio file"),
    "no-transcript": Kind("left out", "audio without a text"),
    "text-without-audio": Kind("left out", "a text, or a segment, without audio"),
    "duplicate-id": Kind("left out", "a name that was there before: the first one counts"),
    "bad-line": Kind("left out", "a line that cannot be read"),
    "outside-audio": Kind("left out", "times outside the recording, or an end before its start"),
    "empty-text": Kind("left out", "nothing is left of the text after normalisation"),
    "too-short": Kind("kept", "shorter than 0.2 s (below 12.5 ms: left out)"),
    "too-long": Kind("kept", "longer than 30 s: memory, and few such batches"),
    "too-many-tokens": Kind("skipped in training", "more tokens than CTC can align to its frames"),
    "no-tokens": Kind("kept", "the tokeniser cannot be trained on these texts with these options"),
    "fast-speech": Kind("kept", "more than 2 times the median of characters per second"),
    "slow-speech": Kind("kept", "less than a quarter of the median of characters per second"),
    "odd-characters": Kind("kept", "control characters, or UTF-8 that was read as Latin-1"),
    "markup": Kind("kept", "tags or brackets in the text"),
    "digits": Kind("kept", "digits in the text: how they were spoken is not said"),
    "repeated-words": Kind("kept", "one word 5 or more times in a row"),
    "unknown-characters": Kind("kept", "characters that no training text has"),
    "text-in-splits": Kind("kept", "a text of 20 characters or more that training has, too"),
    "speaker-in-splits": Kind("kept", "a speaker whom training has, too"),
    "overlap": Kind("kept", "two utterances of one channel overlap by more than 0.1 s"),
    "repeated-audio": Kind("kept", "the same samples as another utterance"),
    "clipped": Kind("kept", "samples that are cut off at full scale"),
    "silent": Kind("kept", "below -65 dB of full scale: nobody can be heard"),
    "quiet": Kind("kept", "below -50 dB of full scale"),
    "mostly-silent": Kind("kept", "70 % of it is 45 dB or more below its loudest part"),
    "dc-offset": Kind("kept", "a mean that is not zero (more than 2 % of full scale)"),
    "narrow-band": Kind("kept", "nothing in the upper half of the band: upsampled?"),
    "low-rate": Kind("kept", "sampled below 16 kHz: will be upsampled"),
    "several-channels": Kind("kept", "a recording of several channels, of which one is used"),
    "not-finite": Kind("left out", "samples that are NaN or infinite"),
}
"""By name, in the order of reports."""
