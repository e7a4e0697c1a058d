#!/usr/bin/env python3
"""How far confidence can be trusted: a table of what decoded splits say of their tokens, with and
without calibration, a reliability picture, and how often speech was called out of domain.

    source tools/env.sh; tools/analysis/calibration.py EXP/decode/FOLDER ... [--picture OUT.png]
        [--transcripts NAME=FOLDER ...] [--markdown]

A FOLDER has the confidence-<split>.json of decode.py or streaming_decode.py; to calibrate, decode
split valid. `--transcripts` also counts the JSON files that dualasr-transcribe has written of other
recordings, such as speech that the model must not know.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dualasr_lib.core.files import output_file
from dualasr_lib.core.program import run_program, what_is_wrong
from dualasr_lib.core.table import aligned, markdown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dualasr_lib.decoding.confidence_files import Confident

HEADER = ("results", "split", "tokens", "right %", "posterior %", "confidence %", "ECE before",
          "ECE after", "NCE before", "NCE after", "texts", "out of domain")  # fmt: skip


_FEW = 10  # tokens


class Tokens(NamedTuple):
    """All tokens of a split whose truth is known, U."""

    posteriors: list[float]
    confidences: list[float]
    correct: list[bool]


class Split(NamedTuple):
    """A decoded split."""

    folder: str
    name: str
    tokens: Tokens
    num_texts: int
    out_of_domain: int | None
    """Texts; None without calibration."""


def read_split(path: Path) -> Split:
    """What a confidence-<split>.json has.

    Raises:
        ValueError: it is missing or damaged.
    """
    from dualasr_lib.decoding.confidence_files import read_confidence

    texts = read_confidence(path)
    document = json.loads(path.read_text(encoding="utf-8"))
    flags = [text["out_of_domain"] for text in document["utterances"].values()]
    far = sum(bool(flag) for flag in flags) if document["calibrated"] else None
    name = path.stem.removeprefix("confidence-")
    return Split(path.parent.name, name, tokens_of(texts), len(texts), far)


def tokens_of(texts: "Sequence[Confident]") -> Tokens:
    """Those of texts that have a reference."""
    known = [(text, text.correct) for text in texts if text.correct is not None]
    return Tokens(
        [value for text, _ in known for value in text.posteriors],
        [value for text, _ in known for value in text.confidences],
        [is_right for _, correct in known for is_right in correct],
    )


def row(split: Split) -> tuple[str, ...]:
    """A line of the table."""
    from dualasr_lib.metrics.calibration import calibration_error, cross_entropy_gain

    posteriors, confidences, correct = split.tokens
    both = (posteriors, confidences)
    return (
        split.folder,
        split.name,
        str(len(correct)),
        *(_percent(sum(values), len(values)) for values in (correct, *both)),
        *(_number(calibration_error(values, correct)) for values in both),
        *(_number(cross_entropy_gain(values, correct)) for values in both),
        str(split.num_texts),
        "-" if split.out_of_domain is None else str(split.out_of_domain),
    )


def transcripts_row(name: str, folder: Path) -> tuple[str, ...]:
    """A line of the table for recordings that were transcribed.

    Raises:
        ValueError: no transcript there, or a file that is none.
    """
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise ValueError(f"{folder} must have JSON files of dualasr-transcribe, but has none")
    sure: list[float] = []
    far = unknown = 0
    for path in paths:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            tokens = [token for segment in document["segments"] for token in segment["tokens"]]
            sure += [token["confidence"] for token in tokens]
            far += document["out_of_domain"] is True
            unknown += document["out_of_domain"] is None
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} must be of dualasr-transcribe: {what_is_wrong(error)}"
            ) from None
    told = f"{far} ({unknown} without verdict)" if unknown else str(far)
    middle = (str(len(sure)), "-", "-", _percent(sum(sure), len(sure)), "-", "-", "-", "-")
    return (name, "", *middle, str(len(paths)), told)


def draw(splits: Sequence[Split], path: Path) -> None:
    """Reliability before and after calibration, a row for each folder of results: split valid, on
    which it was made, and all others together.
    """
    from matplotlib.figure import Figure

    from analysis.pictures import write_picture

    folders = list(dict.fromkeys(split.folder for split in splits))
    figure = Figure(figsize=(9, 4.2 * len(folders)), layout="constrained")
    panels = figure.subplots(len(folders), 2, squeeze=False, sharex=True, sharey=True)
    for folder, (left, right) in zip(folders, panels):
        own = [split for split in splits if split.folder == folder]
        for group in ([s for s in own if s.name == "valid"], [s for s in own if s.name != "valid"]):
            if group:
                name = "+".join(split.name for split in group)
                columns = [[v for s in group for v in s.tokens[i]] for i in range(3)]
                tokens = Tokens._make(columns)
                _curve(left, name, tokens.posteriors, tokens.correct)
                _curve(right, name, tokens.confidences, tokens.correct)
        left.set_title(f"{folder}: posterior")
        right.set_title(f"{folder}: calibrated confidence")
        for axes in (left, right):
            axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
            axes.set_xlabel(f"mean of a bin of at least {_FEW} tokens (probability)")
            axes.set_ylabel("tokens that are right (share)")
            axes.legend(fontsize="small", loc="lower right")
    write_picture(figure, path, dpi=110)


def _curve(axes: "Axes", name: str, values: Sequence[float], correct: Sequence[bool]) -> None:
    """Bins of some tokens with 95 % intervals (Wilson); those of a few tokens say nothing."""
    from dualasr_lib.metrics.calibration import calibration_error, reliability

    bins = [each for each in reliability(values, correct) if each.size >= _FEW]
    bounds = [wilson(each.accuracy, each.size) for each in bins]
    below = [each.accuracy - low for each, (low, _) in zip(bins, bounds)]
    above = [high - each.accuracy for each, (_, high) in zip(bins, bounds)]
    label = f"{name}, {len(correct)} tokens, ECE {_number(calibration_error(values, correct))}"
    axes.errorbar(
        [each.confidence for each in bins], [each.accuracy for each in bins],
        yerr=[below, above], marker="o", markersize=4, linewidth=1, capsize=2, label=label,
    )  # fmt: skip


def wilson(share: float, size: int) -> tuple[float, float]:
    """95 % interval of a share of `size` things."""
    z2 = 1.96**2
    middle = (share + z2 / (2 * size)) / (1 + z2 / size)
    half = (z2 * (share * (1 - share) / size + z2 / (4 * size**2))) ** 0.5 / (1 + z2 / size)
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def _percent(part: float, whole: int) -> str:
    return f"{100 * part / whole:.2f}" if whole else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _named(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not equals or not name or not folder:
        raise ValueError(f"--transcripts must be NAME=FOLDER, but is {text!r}")
    return name, Path(folder)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--transcripts", nargs="+", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--picture", type=output_file, help="where to draw reliability")
    parser.add_argument("--markdown", action="store_true", help="a table for documents")
    options = parser.parse_args()
    others = [_named(text) for text in options.transcripts]
    paths = [
        path for folder in options.folders for path in sorted(folder.glob("confidence-*.json"))
    ]
    if not paths:
        raise ValueError(
            f"no confidence-<split>.json in {', '.join(map(str, options.folders))}: decode.py and "
            "streaming_decode.py write them"
        )
    splits = [read_split(path) for path in paths]
    rows = [HEADER, *map(row, splits), *(transcripts_row(*other) for other in others)]
    print((markdown if options.markdown else aligned)(rows))
    if options.picture is not None:
        draw(splits, options.picture)


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parent.parent))  # for pictures
    run_program(main)
