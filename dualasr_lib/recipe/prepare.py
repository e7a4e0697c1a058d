"""The program behind prepare.sh: reads the options and runs the stages that are not done yet."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dualasr_lib.recipe import features, language, report, utterances
from dualasr_lib.recipe.options import Options
from dualasr_lib.recipe.stage import Folders, PrepareError, Stage, lock
from egs.csj.local import manifests, text

__all__ = ["main", "prepare"]


_DESCRIPTION = "A CSJ tree -> features, tokens, n-grams and a report, in seven restartable stages."


class _Step(NamedTuple):
    name: str
    run: Callable[[Options, Folders], None]
    parameters: dict[str, Any]
    needs: tuple[int, ...]


def _steps(options: Options) -> list[_Step]:
    """The seven stages: what each runs, the parameters that decide its result, the stages it
    reads.
    """
    joining = {"mode": options.mode, "gap": utterances.GAP, "max_length": options.max_length}
    tokens: dict[str, Any] = {"vocab_type": options.vocab_type}
    if options.vocab_type != "char":
        tokens |= {"vocab_size": options.vocab_size}
    orders = {"order": options.order, "rescoring_order": options.rescoring_order}
    corpus = {"csj_dir": str(options.csj_dir), "open": options.open}
    return [
        _Step("check the corpus, manifests by lhotse", manifests.run, corpus, ()),
        _Step("text in both modes", text.run, {}, (1,)),
        _Step("utterances", utterances.run, joining | {"speeds": list(utterances.SPEEDS)}, (1, 2)),
        _Step("features", features.run, features.parameters(), (3,)),
        _Step("tokens", language.run_tokenizer, tokens, (3,)),
        _Step("n-gram language models", language.run_lm, orders, (2, 3, 5)),
        _Step("report", report.run, {}, (1, 3, 4, 5, 6)),
    ]


def prepare(options: Options, first: int = 1, last: int = 7) -> None:
    """Runs the stages from `first` to `last`; stages with a marker are skipped.

    Raises:
        PrepareError: what the user has to put right.
    """
    stages: list[Stage] = []
    with lock(options.data_dir):
        for number, step in enumerate(_steps(options), start=1):
            needs = [stages[i - 1] for i in step.needs]
            stage = Stage(options.data_dir, number, step.parameters, needs)
            stages.append(stage)
            if first <= number <= last:
                _run(stage, step, options)


def _run(stage: Stage, step: _Step, options: Options) -> None:
    stage.check_inputs()
    if stage.is_done():
        print(f"stage {stage.number}: {step.name}: done before", flush=True)
        return
    print(f"stage {stage.number}: {step.name}", flush=True)
    start = time.monotonic()
    with stage.building(keep_partial=step.run is features.run) as folders:
        step.run(options, folders)
    print(f"stage {stage.number}: done in {time.monotonic() - start:.1f} s", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line (default: the program's); returns the exit code."""
    values = vars(_parser().parse_args(arguments))
    first, last = values.pop("stage"), values.pop("stop_stage")
    try:
        if not 1 <= first <= last <= 7:
            raise PrepareError(f"--stage and --stop-stage must be in 1..7, are {first} and {last}")
        values["csj_dir"] = values["csj_dir"].resolve()
        values["data_dir"] = values["data_dir"].resolve()
        prepare(Options(**values), first, last)
    except (ValueError, OSError) as error:
        print(f"prepare.sh: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("prepare.sh: interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prepare.sh", description=_DESCRIPTION, allow_abbrev=False
    )
    add = parser.add_argument
    add("--csj-dir", type=Path, required=True, help="the corpus: the folder of MORPH/ and WAV/")
    add("--data-dir", type=Path, required=True, help="where everything is written")
    add("--mode", choices=["disfluent", "fluent"], default="disfluent", help="text to train on")
    add("--open", action="store_true", help="the corpus is the open one: attach its word times")
    add("--max-length", type=float, default=10.0, metavar="S", help="join units up to S seconds")
    add("--allow-bad", type=int, default=0, metavar="N", help="leave out up to N defective talks")
    add("--jobs", type=int, default=2, metavar="N", help="processes (default 2)")
    add("--vocab-type", choices=["char", "unigram", "bpe"], default="char", help="kind of tokens")
    add("--vocab-size", type=int, default=500, metavar="V", help="tokens, for unigram and bpe")
    add("--order", type=int, default=3, metavar="N", help="order of the n-grams (default 3)")
    add("--rescoring-order", type=int, default=5, metavar="N", help="of the longer one (default 5)")
    add("--stage", type=int, default=1, metavar="A", help="first stage (default 1)")
    add("--stop-stage", type=int, default=7, metavar="B", help="last stage (default 7)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
