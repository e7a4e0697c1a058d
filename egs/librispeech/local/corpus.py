"""LibriSpeech as the shared recipe sees it: `lhotse prepare librispeech` and a few choices.

Lower case, 500 BPE pieces, errors in words and characters. Validation is on dev-clean, with
dev-other if it is there, as published recipes do; evaluation is on test-clean and test-other, those
that are there. Also the program behind prepare.sh.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dualasr_lib.data.pieces import PieceType
from dualasr_lib.programs.prepare import main
from dualasr_lib.recipe.by_lhotse import Named, by_lhotse, transcript_lines
from dualasr_lib.recipe.corpus import Corpus, GivenWords, Split
from dualasr_lib.recipe.options import Options, option
from dualasr_lib.recipe.stage import Folders, PrepareError

__all__ = ["LIBRISPEECH", "LibriSpeechOptions"]

TRAINING = {
    "mini": ("train-clean-5",),
    "100": ("train-clean-100",),
    "960": ("train-clean-100", "train-clean-360", "train-other-500"),
}
ARPAS = (("3-gram.pruned.1e-7", "3-gram.pruned.3e-7", "3-gram"), ("4-gram",))
"""Names on OpenSLR 11; of each row the first that is there is taken: to search, to rescore."""


@dataclass(frozen=True, kw_only=True)
class LibriSpeechOptions(Options):
    """What prepare.sh is called with."""

    corpus_dir: Path = option(what="the folder LibriSpeech/ of OpenSLR 12 or 31, or the one above")
    parts: Literal["mini", "100", "960"] = option("100", what="parts to train on (default 100)")
    lm_dir: Path | None = option(
        None, metavar="DIR", what="n-grams and lexicon of OpenSLR 11, used if given", stage=6
    )
    vocab_type: PieceType = option("bpe", what="kind of tokens (default bpe)", stage=5)
    vocab_size: int = option(500, metavar="V", what="tokens (default 500)")

    @property
    def source(self) -> Path:
        """The folder LibriSpeech/."""
        inner = self.corpus_dir / "LibriSpeech"
        return inner if inner.is_dir() else self.corpus_dir


def _splits(options: LibriSpeechOptions) -> tuple[Split, ...]:
    dev = ("dev-clean-2",) if options.parts == "mini" else ("dev-clean",)
    others = ("dev-other",) if (options.source / "dev-other").is_dir() else ()
    tests = [part for part in ("test-clean", "test-other") if (options.source / part).is_dir()]
    return (
        Split("train", TRAINING[options.parts], "train"),
        Split("dev", dev if options.parts == "mini" else (*dev, *others), "valid"),
        *(Split(part, (part,), "eval") for part in tests),
    )


def _manifests(options: LibriSpeechOptions, folders: Folders) -> None:
    parts = LIBRISPEECH.parts(options)
    if missing := [part for part in parts if not (options.source / part).is_dir()]:
        raise PrepareError(
            f"'{options.source}' must have {', '.join(missing)} for --parts {options.parts}"
        )
    named = [unit for part in parts for unit in _named(options.source / part)]
    chosen = [word for part in parts for word in ("-p", part)]
    by_lhotse(LIBRISPEECH, options, folders, named, "librispeech", str(options.source), *chosen)


def _named(folder: Path) -> Iterator[Named]:
    """The lines of all transcripts, and audio that has none."""
    heard = {path.stem: path for path in sorted(folder.rglob("*.flac"))}
    for path in sorted(folder.rglob("*.trans.txt")):
        for number, line in enumerate(transcript_lines(path), start=1):
            id_, _, text = line.strip().partition(" ")
            if not text:
                raise PrepareError(f"{path}:{number}: must be 'id text', is '{line}'")
            yield Named(id_, path, "" if heard.pop(id_, None) else "no audio")
    yield from (Named(id_, path, "no text") for id_, path in heard.items())


def _given(options: LibriSpeechOptions) -> GivenWords:
    if options.lm_dir is None:
        return GivenWords()
    endings = (".arpa", ".arpa.gz")
    found = [
        [
            path
            for name in row
            for end in endings
            if (path := options.lm_dir / f"{name}{end}").is_file()
        ]
        for row in ARPAS
    ]
    if not any(found):
        names = ", ".join(f"{name}.arpa[.gz]" for row in ARPAS for name in row)
        raise PrepareError(f"'{options.lm_dir}' has none of {names}")
    lexicon = options.lm_dir / "librispeech-lexicon.txt"
    arpas = tuple(paths[0] for paths in found if paths)
    return GivenWords(arpas, lexicon if lexicon.is_file() else None)


LIBRISPEECH = Corpus(
    name="librispeech",
    description="A LibriSpeech tree -> features, tokens, n-grams and a report, in seven stages.",
    language="en",
    units=("word", "character"),
    options=LibriSpeechOptions,
    splits=_splits,
    manifests=_manifests,
    normaliser=lambda _: "lower",
    given_words=_given,
)

if __name__ == "__main__":
    sys.exit(main(LIBRISPEECH))
