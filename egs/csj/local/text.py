"""CSJ's text in both modes, by our own rules; word times of the open corpus.

Our disfluent text must equal lhotse's for every unit; a difference stops the program. Word times
become lhotse alignments `word` (disfluent) and `word_fluent`. Words are CSJ's short units, one to a
row of an SDB file, so none need a morphological analyser.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from dualasr_lib.core.program import what_is_wrong
from dualasr_lib.core.text import read_text
from dualasr_lib.recipe.corpus import Item
from dualasr_lib.recipe.stage import PrepareError
from egs.csj.local.csj_text import Mode, ParsedText, parse_surface, raw_surfaces
from egs.csj.local.options import CsjOptions

__all__ = ["converter", "words_of"]

_TIME_TOLERANCE = 0.011
"""Seconds by which a word may reach out of its unit (rounding of times in both files)."""
_BOUNDARY = "\uffff"
"""Stands between words while their tags are read; Unicode promises that no text has it."""


class _Word(NamedTuple):
    text: str
    start: float
    end: float


def converter(options: CsjOptions) -> Callable[[Item], Item]:
    """What turns a unit of lhotse's recipe into one with both texts and, with --open, word times.

    Units must come talk by talk, or each talk's words are read again.
    """
    words = _Words(_word_files(options.csj_dir)) if options.open else None
    return partial(_convert, words=words)


def _convert(item: Item, words: "_Words | None") -> Item:
    surface = raw_surfaces(item["custom"]["raw"])
    parsed = parse_surface(surface)
    fluent = parse_surface(surface, "fluent")
    if parsed.text != item["custom"]["disfluent"]:
        theirs = item["custom"]["disfluent"]
        raise PrepareError(f"our text '{parsed.text}' is not lhotse's '{theirs}'")
    item["custom"]["fluent"] = fluent.text
    if words is not None:
        item["alignment"] = _alignment(words.of_unit(item), parsed, fluent)
    return item


def _alignment(
    words: list[_Word], parsed: ParsedText, fluent: ParsedText
) -> dict[str, list[list[object]]]:
    """lhotse's plain form: for each tier a list of [symbol, start, duration, score]."""
    spelt = "".join(word.text for word in words)
    if spelt != parsed.text:
        raise PrepareError(f"its words spell '{spelt}', its text is '{parsed.text}'")
    kept = list(_fluent_words(words, parsed))
    if "".join(word.text for word in kept) != fluent.text:
        raise PrepareError(f"its words do not spell the fluent text '{fluent.text}'")
    tiers = {"word": words, "word_fluent": kept}
    return {
        name: [[word.text, word.start, round(word.end - word.start, 6), None] for word in tier]
        for name, tier in tiers.items()
    }


def _fluent_words(words: list[_Word], parsed: ParsedText) -> Iterator[_Word]:
    position = 0
    for word in words:
        keep = parsed.spoken_fluently[position : position + len(word.text)]
        position += len(word.text)
        text = "".join(char for char, kept in zip(word.text, keep, strict=True) if kept)
        if text:
            yield word._replace(text=text)


def _word_files(csj_dir: Path) -> dict[str, Path]:
    files = {path.stem: path for path in sorted((csj_dir / "WORDS").glob("*/*.tsv"))}
    if not files:
        raise PrepareError(f"--open needs word times, but '{csj_dir}/WORDS' has none")
    return files


def words_of(unit: Item, mode: Mode) -> list[str]:
    """The words of a unit or utterance in a mode, by the surfaces in `custom.raw`.

    Tags may reach over several words, so all are read at once. Where a tag has alternatives, the
    one that is kept has the boundaries that stand in it. Words of which nothing is left are
    skipped.

    Raises:
        PrepareError: together they are not the unit's text.
    """
    surface = raw_surfaces(unit["custom"]["raw"]).replace(" ", _BOUNDARY)
    words = [word for word in parse_surface(surface, mode).text.split(_BOUNDARY) if word]
    spelt, text = "".join(words), unit["custom"][mode]
    if spelt != text:
        raise PrepareError(f"unit {unit['id']}: its words spell '{spelt}', its text is '{text}'")
    return words


class _Words:
    """The words of each channel of each talk, in time order; each unit takes its own."""

    def __init__(self, files: dict[str, Path]) -> None:
        self._files = files
        self._talk = ""
        self._channels: dict[str, list[_Word]] = {}

    def of_unit(self, item: Item) -> list[_Word]:
        recording = item["recording_id"]
        is_channel = recording.endswith(("-L", "-R"))
        talk, channel = (recording[:-2], recording[-1]) if is_channel else (recording, "L")
        if talk != self._talk:
            self._talk, self._channels = talk, self._read(talk)
        start, end = item["start"], item["start"] + item["duration"]
        return [
            word
            for word in self._channels.get(channel, ())
            if word.start >= start - _TIME_TOLERANCE and word.end <= end + _TIME_TOLERANCE
        ]

    def _read(self, talk: str) -> dict[str, list[_Word]]:
        if talk not in self._files:
            raise PrepareError(f"talk {talk} has no word times (WORDS/*/{talk}.tsv)")
        path = self._files[talk]
        header: list[str] = []
        channels: dict[str, list[_Word]] = {}
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            if number == 1:
                header = line.split("\t")
                continue
            try:
                row = dict(zip(header, line.split("\t"), strict=True))
                word = _Word(row["text"], float(row["start"]), float(row["end"]))
                channels.setdefault(row["channel"], []).append(word)
            except (KeyError, ValueError) as error:
                raise PrepareError(f"{path}:{number}: {what_is_wrong(error)}") from error
        return channels
