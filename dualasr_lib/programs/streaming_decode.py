"""Simulates streaming: audio in chunks, partial texts as they come, many streams in parallel.

    streaming_decode.py --exp-dir EXP --data-dir DATA --split eval1 --chunk-ms 320 \\
        --num-streams 8 [--method 1best] [--two-pass] [--realtime] [--show]
    streaming_decode.py --bundle model.dualasr --data-dir DATA --out-dir OUT --split eval1

Samples go through online features, the `step` of the encoder and an online search; nothing is
computed on whole utterances. Writes EXP/decode/streaming-online-<method>/{recogs,errs,summary}-*,
the summary with latencies; what is not default stands in the folder's name, too. --realtime feeds
audio at its natural speed and reads the wall clock.

--two-pass rewrites each text when its audio has ended: the full-context stacks read the streaming
states that are there already, and their attention decoder chooses, or with --second-method rescore
any heads, among the texts of the first pass, too. Results go to EXP/decode/full-two-pass/; the
summary has the CER of the first pass, the time that the second one took, and what it left out for
--second-budget-ms.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from dualasr_lib.core.progress import Progress
from dualasr_lib.programs.options import add_options, decode_config, parser
from dualasr_lib.programs.results import check_place, deliver, is_valid, valid_first
from dualasr_lib.recognition.decode_config import DecodeConfig
from dualasr_lib.recognition.methods import registry
from dualasr_lib.recognition.naming import ResultName

if TYPE_CHECKING:
    from dualasr_lib.data.datamodule import DataModule
    from dualasr_lib.decoding.contract import OnlineSearch, SecondPass
    from dualasr_lib.decoding.hypothesis import Emission, Hypothesis
    from dualasr_lib.decoding.offline import Detokenise
    from dualasr_lib.decoding.streaming import Watcher
    from dualasr_lib.decoding.summary import Scoring
    from dualasr_lib.programs.screen import Screen
    from dualasr_lib.recognition.calibration import Calibrator
    from dualasr_lib.recognition.decode_setup import DecodeSetup
    from dualasr_lib.recognition.trained_model import StreamingPath

__all__ = ["StreamJob", "main", "read_job", "run"]

_USUAL_STREAMS = 8


@dataclass(frozen=True, kw_only=True)
class StreamJob:
    """What is streamed, and how."""

    config: DecodeConfig
    splits: tuple[str, ...]
    num_streams: int = _USUAL_STREAMS
    """Streams in parallel."""
    realtime: bool = False
    """Audio at its natural speed."""
    show: bool = False
    """Print texts as they grow, then the final one, marked where a second pass changed it."""

    def __post_init__(self) -> None:
        if self.num_streams < 1:
            raise ValueError(f"--num-streams must be at least 1, but is {self.num_streams}")

    @property
    def variant(self) -> tuple[str, ...]:
        """What of it is not default, for the name of the results."""
        streams = (f"streams{self.num_streams}",) if self.num_streams != _USUAL_STREAMS else ()
        return (*(("realtime",) if self.realtime else ()), *streams)


class _Ready(NamedTuple):
    """Searches of both passes, and what their results are called."""

    first: "OnlineSearch"
    second: "SecondPass | None"
    params: dict[str, Any]
    name: ResultName
    calibrator: "Calibrator"
    """Of the pass that writes the final text."""


def read_job(arguments: Sequence[str] | None = None) -> StreamJob:
    """The job that a command line asks for.

    Raises:
        ValueError: options that do not go together.
    """
    able = registry.listing(lambda method: method.stream is not None)
    reader = parser(f"{__doc__}\nSearch methods (--method):\n{able}")
    add_options(reader, "stream")
    found: argparse.Namespace = reader.parse_args(arguments)
    return StreamJob(
        config=decode_config(found, "stream"),
        splits=tuple(dict.fromkeys(found.split)),
        num_streams=found.num_streams,
        realtime=found.realtime,
        show=found.show,
    )


def main() -> None:
    """The program."""
    run(read_job())


def run(job: StreamJob) -> None:
    """Streams everything that the job asks for, and writes the results."""
    from dualasr_lib.programs.data import identity_of, open_data
    from dualasr_lib.recognition.decode_setup import DecodeSetup
    from dualasr_lib.recognition.scoring import scoring_of

    setup = DecodeSetup(job.config, open_data)
    ready = [_ready(setup, job, method) for method in setup.methods("streaming")]
    path = setup.trained.streaming(setup.chunk)  # last: tuning hears whole utterances
    data = open_data(setup.trained, job.config.data_dir)
    folder = identity_of(job.config.data_dir)
    for searches in ready:
        check_place(searches.name.directory(job.config.results_dir), job.splits, folder)
    for searches, split in product(ready, valid_first(data.folder, job.splits)):
        scoring = scoring_of(data.folder, split, folder)
        _decode(job, searches, path, setup.trained.detokenise, split, data, scoring)


def _decode(
    job: StreamJob,
    ready: _Ready,
    path: "StreamingPath",
    detokenise: "Detokenise",
    split: str,
    data: "DataModule",
    scoring: "Scoring",
) -> None:
    """One method and one split."""
    from dualasr_lib.decoding.streaming import StreamingConfig, Watcher, decode_streams
    from dualasr_lib.decoding.summary import RunInfo, describe, streaming_summary
    from dualasr_lib.programs.screen import Screen

    name, utterances = ready.name, data.split_cuts(split)
    progress = Progress(f"{split} {name.method}", "utterances", len(utterances))
    watcher = Watcher(on_final=partial(_count, progress))
    if job.show:
        screen = Screen()
        screen.say(f"weights: {ready.params['model']}; {name.method}")
        watcher = _shown_on(screen, progress)
    config = StreamingConfig(
        num_streams=job.num_streams,
        realtime=job.realtime,
        budget_seconds=job.config.budget_seconds,
    )
    found = decode_streams(utterances, path, ready.first, detokenise, config, ready.second, watcher)
    info = RunInfo(split, name.branch, name.method, ready.params, name.variant, scoring)
    summary, fit = streaming_summary(info, found, path), is_valid(data.folder, split)
    directory = name.directory(job.config.results_dir)
    done = deliver(directory, found.hypotheses, summary, ready.calibrator, detokenise, fit)
    progress.close(f"{describe(summary)}, {done.files.summary}")


def _ready(setup: "DecodeSetup", job: StreamJob, method: str) -> _Ready:
    first = setup.online(method)
    second, params, name, calibrator = None, first.params, first.name, first.calibrator
    if job.config.two_pass:
        rewriting = setup.second_pass()
        second, params = rewriting.run, {**params, "second_pass": rewriting.params}
        name, calibrator = setup.two_pass_name(rewriting), rewriting.calibrator
    name = name._replace(variant=name.variant + job.variant)
    return _Ready(first.search, second, params, name, calibrator)


def _shown_on(screen: "Screen", progress: Progress) -> "Watcher":
    """Tells the screen what is heard; a final text is shown when a user would see it."""
    from dualasr_lib.decoding.streaming import Watcher

    def on_partial(utterance: str, emission: "Emission") -> None:
        screen.partial(utterance, emission.shown_seconds, emission.text)

    def on_final(final: "Hypothesis") -> None:
        seconds = final.duration + (final.final_seconds or 0.0)
        screen.final(final.id, seconds, final.first_pass_text, final.text)
        screen.end(final.id)
        progress.add(1)

    return Watcher(on_partial, on_final)


def _count(progress: Progress, hypothesis: "Hypothesis") -> None:
    progress.add(1)
