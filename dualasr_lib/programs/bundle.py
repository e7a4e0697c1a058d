"""`dualasr-bundle`: a model in one file, with all that recognition needs; or what is in one.

    dualasr-bundle EXP --data-dir DATA --epoch E --avg K --out model.dualasr [--dtype float16]
        [--lm ARPA ... [--lexicon FILE]] [--endpoint KEY=VALUE ...] [--results NAME=OUT ...]
        [--licence TEXT] [--card FILE]
    dualasr-bundle --show [model.dualasr]

The file holds averaged weights, the configuration, the tokens, the scales that EXP/scales has for
these weights, the errors with intervals that EXP/decode has of them, and what --card says of the
model's limits. It holds tensors and plain data only: nothing executes on loading. --show without a
file shows the model that comes with the package.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dualasr_lib.core.files import output_file
from dualasr_lib.core.program import run_program
from dualasr_lib.core.text import read_text
from dualasr_lib.programs.options import parser
from dualasr_lib.recognition.default import default_bundle

__all__ = ["main", "program"]


def program() -> None:
    """The console script."""
    run_program(main, "recognise")


def main(words: Sequence[str] | None = None) -> None:
    """Makes a bundle, or shows one."""
    arguments = _read(words)
    from dualasr_lib.recognition.card import describe_bundle

    if arguments.show is not None:
        shown = default_bundle() if arguments.show is True else arguments.show
        print(describe_bundle(shown))
        return
    _check(arguments)
    results = _others(arguments.results)
    limits = "" if arguments.card is None else read_text(arguments.card)
    from dualasr_lib.recognition.bundle import write_bundle
    from dualasr_lib.recognition.bundling import BundleJob, make_bundle

    job = BundleJob(
        exp_dir=arguments.exp_dir,
        data_dir=arguments.data_dir,
        epoch=arguments.epoch,
        avg=arguments.avg,
        dtype=arguments.dtype,
        lms=tuple(arguments.lm),
        lexicon=arguments.lexicon,
        endpoint=tuple(arguments.endpoint),
        results=results,
        licence=arguments.licence,
        limits=limits.strip(),
    )
    write_bundle(make_bundle(job), arguments.out)
    print(describe_bundle(arguments.out))


def _read(words: Sequence[str] | None) -> argparse.Namespace:
    reader = parser(__doc__)
    add = reader.add_argument
    add("exp_dir", type=Path, nargs="?", metavar="EXP", help="what train.py wrote")
    add("--show", type=Path, nargs="?", const=True, metavar="FILE",
        help="say what is in a bundle; default: the package's")  # fmt: skip
    add("--out", type=output_file, metavar="FILE", help="the bundle")
    add("--data-dir", type=Path, metavar="DATA", help="what prepare.sh wrote: tokens, data.json")
    add("--epoch", type=int, help="checkpoint; default: the newest")
    add("--avg", type=int, default=0, help="mean of the last K epochs; default: none")
    add("--dtype", choices=("float32", "float16"), default="float32",
        help="of the weights in the file; default: float32")  # fmt: skip
    add("--lm", type=Path, nargs="+", default=[], metavar="ARPA",
        help="n-grams of tokens, or with --lexicon of words")  # fmt: skip
    add("--lexicon", type=Path, metavar="FILE", help="words and their tokens")
    add("--endpoint", nargs="+", default=[], metavar="KEY=VALUE",
        help="when a sentence ends, if not as usual: pause_seconds=0.8 ...")  # fmt: skip
    add("--results", nargs="+", default=[], metavar="NAME=OUT",
        help="errors on other data, which decode.py --out-dir OUT left;\n"
        "the card calls their splits NAME-eval1 ...")  # fmt: skip
    add("--licence", default="", metavar="TEXT", help="of the weights")
    add("--card", type=Path, metavar="FILE", help="text: what the model cannot do")
    return reader.parse_args(words)


def _others(words: Sequence[str]) -> dict[str, Path]:
    """`["noisy=OUT"]` -> folder by name; ValueError for what is none."""
    found = {}
    for word in words:
        name, _, folder = word.partition("=")
        if not name or not folder or name in found:
            raise ValueError(f"--results must be NAME=OUT, each name once, but has {word!r}")
        found[name] = Path(folder)
    return found


def _check(arguments: argparse.Namespace) -> None:
    """ValueError unless a bundle can be made of the options."""
    if arguments.exp_dir is None:
        raise ValueError("give EXP, whose model is bundled, or --show FILE")
    for name, why in (("data_dir", "whose tokens belong to the model"), ("out", "the file")):
        if getattr(arguments, name) is None:
            raise ValueError(f"--{name.replace('_', '-')} must be given: {why}")


if __name__ == "__main__":
    program()
