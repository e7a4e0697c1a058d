"""Anybody's own recordings as the shared recipe sees them: lhotse cuts, a Kaldi folder, or a folder
of audio with a file of texts. Any sampling rate, any language. Also the program behind prepare.sh.
"""

import dataclasses
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from dualasr_lib.metrics.units import UnitName
from dualasr_lib.programs.prepare import main
from dualasr_lib.recipe.corpus import Corpus, Split
from dualasr_lib.recipe.options import Options, option
from dualasr_lib.recipe.stage import Folders, write_jsonl

__all__ = ["OWN", "OwnOptions"]

Normaliser = Literal["none", "lower", "nfkc", "japanese", "english"]
SplitBy = Literal["speaker", "recording", "utterance"]
NO_SPACES = ("ja", "zh", "yue", "th", "lo", "km", "my")
"""Languages that write no spaces between words: errors are counted in characters alone."""


@dataclass(frozen=True, kw_only=True)
class OwnOptions(Options):
    """What prepare.sh is called with."""

    cuts: Path | None = option(None, metavar="FILE", what="a cut manifest of lhotse", stage=1)
    kaldi_dir: Path | None = option(
        None, metavar="DIR", what="a Kaldi folder: wav.scp, text, segments, utt2spk", stage=1
    )
    audio_dir: Path | None = option(None, metavar="DIR", what="a folder of audio, with --text")
    text: Path | None = option(
        None, metavar="FILE", what="lines NAME TEXT, or by tabs NAME, TEXT, SPEAKER", stage=1
    )
    language: str = option("en", metavar="CODE", what="code of ISO 639-1 (default en)")
    normaliser: Normaliser = option("none", what="what is done to the texts (default none)")
    units: Literal["auto", "character", "word", "both"] = option(
        "auto", what="what errors are counted in (auto: characters where no spaces part words)"
    )
    split_file: Path | None = option(
        None, metavar="FILE", what="lines NAME SPLIT: train, valid and others; else made", stage=1
    )
    split_by: SplitBy = option("speaker", what="what is kept together (default speaker)", stage=1)
    valid_share: float = option(0.05, metavar="X", what="part for validation (0.05)", stage=1)
    test_share: float = option(
        0.05, metavar="X", what="part for evaluation (0.05; 0: none)", stage=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in ("cuts", "kaldi_dir", "audio_dir") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError("give one of --cuts, --kaldi-dir and --audio-dir")
        if (self.text is None) != (self.audio_dir is None):
            raise ValueError("--text goes with --audio-dir, and only with it")
        if self.valid_share <= 0 or self.test_share < 0:
            raise ValueError("--valid-share must be above 0, --test-share at least 0")
        if self.valid_share + self.test_share >= 0.9:
            raise ValueError("--valid-share and --test-share leave nothing to train on")

    @property
    def source(self) -> Path | None:
        """The folder of audio, which may move."""
        return self.audio_dir


@lru_cache(maxsize=1)
def _given(path: Path) -> dict[str, str]:
    from dualasr_lib.recipe.speaker_split import read_splits

    return read_splits(path)


def _splits(options: OwnOptions) -> tuple[Split, ...]:
    if options.split_file is not None:
        names = sorted(set(_given(options.split_file).values()) - {"train", "valid"})
    else:
        names = ["test"] if options.test_share else []
    return (
        Split("train", ("train",), "train"),
        Split("valid", ("valid",), "valid"),
        *(Split(name, (name,), "eval") for name in names),
    )


def _manifests(options: OwnOptions, folders: Folders) -> None:
    from dualasr_lib.recipe.audio_dir import read_audio_dir
    from dualasr_lib.recipe.cut_file import read_cuts
    from dualasr_lib.recipe.kaldi_dir import read_kaldi_dir
    from dualasr_lib.recipe.source import settle
    from dualasr_lib.recipe.speaker_split import given_splits, split_units

    if options.cuts is not None:
        source = read_cuts(options.cuts)
    elif options.kaldi_dir is not None:
        source = read_kaldi_dir(options.kaldi_dir)
    else:
        assert options.audio_dir is not None and options.text is not None
        source = read_audio_dir(options.audio_dir, options.text)
    settle(source, options, folders)
    if options.split_file is not None:
        units = given_splits(source.units, _given(options.split_file))
    else:
        shares = {"valid": options.valid_share, "test": options.test_share}
        units = split_units(
            source.units, options.split_by, {name: share for name, share in shares.items() if share}
        )
    for part in OWN.parts(options):
        used = dict.fromkeys(unit["recording_id"] for unit in units[part])
        folder = folders.out / "manifests"
        write_jsonl(folder / OWN.recordings_file(part), (source.recordings[r] for r in used))
        write_jsonl(folder / OWN.supervisions_file(part), units[part])


def _adapted(corpus: Corpus[OwnOptions], options: OwnOptions) -> Corpus[OwnOptions]:
    named: dict[str, tuple[UnitName, ...]] = {
        "character": ("character",),
        "word": ("word",),
        "both": ("word", "character"),
    }
    auto = "character" if options.language in NO_SPACES else "both"
    units = named[auto if options.units == "auto" else options.units]
    return dataclasses.replace(corpus, language=options.language, units=units)


OWN = Corpus(
    name="own",
    description="Your own audio and texts -> features, tokens, n-grams and a report, in 7 stages.",
    language="en",
    units=("word", "character"),
    options=OwnOptions,
    splits=_splits,
    manifests=_manifests,
    normaliser=lambda options: options.normaliser,
    adapt=_adapted,
)

if __name__ == "__main__":
    sys.exit(main(OWN))
