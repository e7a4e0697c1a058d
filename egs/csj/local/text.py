"""Stage 2: the text of every unit in both modes, by our own rules; word times of the open corpus.

Our disfluent text must equal lhotse's for every unit; a difference stops the program. Word times
become lhotse alignments `word` (disfluent) and `word_fluent`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dualasr_lib.recipe.options import PARTS, Options
from dualasr_lib.recipe.stage import (
    Folders,
    PrepareError,
    count_jsonl,
    progress,
    read_jsonl,
    write_jsonl,
)
from egs.csj.local.csj_text import ParsedText, parse_surface, raw_surfaces

__all__ = ["run"]

_TIME_TOLERANCE = 0.011
"""Seconds by which a word may reach out of its unit (rounding of times in both files)."""


class _Word(NamedTuple):
    text: str
    start: float
    end: float


def run(options: Options, folders: Folders) -> None:
    """Writes `text/csj_supervisions_<part>.jsonl.gz`."""
    files = _word_files(options.csj_dir) if options.open else {}
    for part in PARTS:
        source = options.data_dir / "manifests" / f"csj_supervisions_{part}.jsonl.gz"
        items = progress(read_jsonl(source), count_jsonl(source), part)
        words = _Words(files) if options.open else None
        converted = (_convert(item, words) for item in items)
        write_jsonl(folders.out / "text" / source.name, converted)


def _convert(item: dict[str, Any], words: "_Words | None") -> dict[str, Any]:
    surface = raw_surfaces(item["custom"]["raw"])
    try:
        parsed = parse_surface(surface)
        fluent = parse_surface(surface, "fluent")
    except ValueError as error:
        raise PrepareError(f"unit {item['id']}: {error}") from error
    if parsed.text != item["custom"]["disfluent"]:
        theirs = item["custom"]["disfluent"]
        raise PrepareError(
            f"unit {item['id']}: our text '{parsed.text}' is not lhotse's '{theirs}'"
        )
    item["custom"]["fluent"] = fluent.text
    if words is not None:
        item["alignment"] = _alignment(item, words.of_unit(item), parsed, fluent)
    return item


def _alignment(
    item: dict[str, Any], words: list[_Word], parsed: ParsedText, fluent: ParsedText
) -> dict[str, list[list[Any]]]:
    """lhotse's plain form: for each tier a list of [symbol, start, duration, score]."""
    spelt = "".join(word.text for word in words)
    if spelt != parsed.text:
        raise PrepareError(
            f"unit {item['id']}: its words spell '{spelt}', its text is '{parsed.text}'"
        )
    kept = list(_fluent_words(words, parsed))
    if "".join(word.text for word in kept) != fluent.text:
        raise PrepareError(
            f"unit {item['id']}: its words do not spell the fluent text '{fluent.text}'"
        )
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


class _Words:
    """The words of each channel of each talk, in time order; each unit takes its own."""

    def __init__(self, files: dict[str, Path]) -> None:
        self._files = files
        self._talk = ""
        self._channels: dict[str, list[_Word]] = {}

    def of_unit(self, item: dict[str, Any]) -> list[_Word]:
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
        lines = self._files[talk].read_text(encoding="utf-8").splitlines()
        header = lines[0].split("\t")
        channels: dict[str, list[_Word]] = {}
        for number, line in enumerate(lines[1:], start=2):
            try:
                row = dict(zip(header, line.split("\t"), strict=True))
                word = _Word(row["text"], float(row["start"]), float(row["end"]))
            except (KeyError, ValueError) as error:
                raise PrepareError(f"{self._files[talk]}:{number}: {error}") from error
            channels.setdefault(row["channel"], []).append(word)
        return channels
