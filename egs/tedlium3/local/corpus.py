"""TED-LIUM 3 as the shared recipe sees it: `lhotse prepare tedlium` (STM, SPH, the legacy splits)
and its text conventions. Also the program behind prepare.sh.

Suffixes are written apart in the STM files (`they 're`, `that 's`) and joined here; `<unk>` stands
for a word that the aligner did not know, and noises are in brackets: both are taken out, as
lhotse's and Kaldi's recipes do, by lhotse's own function. Segments that are not to be scored are
left out by name.
"""

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dualasr_lib.data.pieces import PieceType
from dualasr_lib.programs.prepare import main
from dualasr_lib.recipe.by_lhotse import Named, by_lhotse, transcript_lines
from dualasr_lib.recipe.corpus import Corpus, Item, Split
from dualasr_lib.recipe.options import Options, option
from dualasr_lib.recipe.stage import Folders, PrepareError

__all__ = ["TEDLIUM", "TedliumOptions"]

_IGNORED = "ignore_time_segment_in_scoring"
_OTHER_SIGNS = re.compile(r"<[^>]*>|\{[^}]*\}|\(\d+\)")
"""Pauses, noises and numbers of pronunciations, which some releases have and lhotse leaves in."""


@dataclass(frozen=True, kw_only=True)
class TedliumOptions(Options):
    """What prepare.sh is called with."""

    corpus_dir: Path = option(what="the folder TEDLIUM_release-3/: legacy/{train,dev,test}")
    vocab_type: PieceType = option("bpe", what="kind of tokens (default bpe)", stage=5)
    vocab_size: int = option(500, metavar="V", what="tokens (default 500)")

    @property
    def source(self) -> Path:
        """The folder of the corpus."""
        return self.corpus_dir


def _manifests(options: TedliumOptions, folders: Folders) -> None:
    named = []
    for part in TEDLIUM.parts(options):
        folder = options.corpus_dir / "legacy" / part
        if not (folder / "stm").is_dir() or not (folder / "sph").is_dir():
            raise PrepareError(f"'{folder}' must have the folders stm/ and sph/")
        named += list(_named(folder))
    by_lhotse(TEDLIUM, options, folders, named, "tedlium", str(options.corpus_dir))


def _named(folder: Path) -> Iterator[Named]:
    """The lines of all STM files, called as lhotse calls them.

    Raises:
        PrepareError: a line is damaged, or a talk lacks its audio or its text, at which lhotse
            stops.
    """
    talks = {path.stem: path for path in sorted((folder / "stm").glob("*.stm"))}
    heard = {path.stem: path for path in sorted((folder / "sph").glob("*.sph"))}
    if odd := sorted(talks.keys() ^ heard.keys()):
        lacking = "audio" if odd[0] in talks else "text"
        raise PrepareError(
            f"'{folder}': {len(odd)} talks have no audio or no text (first: {odd[0]}, no {lacking})"
            "; put in or take out what is missing"
        )
    for path in talks.values():
        for number, line in enumerate(transcript_lines(path)):
            columns = line.split()
            if len(columns) < 6 or not all(map(_is_time, columns[3:5])):
                raise PrepareError(
                    f"{path}:{number + 1}: must be 'talk channel speaker start end <label> text',"
                    f" is '{line[:80]}'"
                )
            ignored = " ".join(columns[6:]) == _IGNORED
            expected = "not to be scored" if ignored else ""
            yield Named(f"{columns[0]}-{number}", path, expected=expected)


def _is_time(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d*)?", text) is not None


def _converter(_: TedliumOptions) -> Callable[[Item], Item]:
    from lhotse.recipes.utils import normalize_text_tedlium

    def convert(unit: Item) -> Item:
        joined = normalize_text_tedlium(unit["text"], "kaldi")
        plain = _OTHER_SIGNS.sub(" ", joined).lower()
        return unit | {"text": " ".join(plain.split())}

    return convert


TEDLIUM = Corpus(
    name="tedlium",
    description="A TED-LIUM 3 tree -> features, tokens, n-grams and a report, in seven stages.",
    language="en",
    units=("word", "character"),
    options=TedliumOptions,
    splits=lambda _: (
        Split("train", ("train",), "train"),
        Split("dev", ("dev",), "valid"),
        Split("test", ("test",), "eval"),
    ),
    manifests=_manifests,
    normaliser=lambda _: "tedlium",
    converter=_converter,
)

if __name__ == "__main__":
    sys.exit(main(TEDLIUM))
