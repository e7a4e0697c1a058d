"""Decodes splits with a trained model: its branches, and search methods, that are asked for.

    decode.py --exp-dir EXP --data-dir DATA --split eval1 --branch full --method attention
    decode.py ... --split valid eval1 --branch streaming full --method 1best attention
    decode.py --bundle model.dualasr --data-dir DATA --out-dir OUT --split eval1 --branch full

Writes EXP/decode/<branch>-<method>/{recogs,errs,summary}-<split>; what is not default (checkpoint,
average, chunk, options, language model, scales) stands in the folder's name, too. The model comes
from the newest checkpoint, of the end of an epoch or of mid-epoch; --epoch E takes the end of
another one, --avg K the mean over the K whole epochs up to it and the steps after them.

Decoding split valid also calibrates the confidence of that branch and method (EXP/calibration),
which confidence-<split>.json has of each token; it is decoded first.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from dualasr_lib.core.progress import Progress
from dualasr_lib.programs.options import add_options, decode_config, parser
from dualasr_lib.programs.results import check_place, deliver, is_valid, valid_first
from dualasr_lib.recognition.decode_config import DecodeConfig
from dualasr_lib.recognition.methods import registry

if TYPE_CHECKING:
    from dualasr_lib.decoding.hypothesis import Hypothesis
    from dualasr_lib.model.joint import Branch
    from dualasr_lib.recognition.decode_setup import DecodeSetup

__all__ = ["DecodeJob", "main", "read_job", "run"]


@dataclass(frozen=True, kw_only=True)
class DecodeJob:
    """What is decoded, and how."""

    config: DecodeConfig
    splits: tuple[str, ...]
    branches: "tuple[Branch, ...]"
    write_nbest: bool = False
    """Also n-best lists."""

    def __post_init__(self) -> None:
        able = registry.names(lambda method: method.lists_texts)
        if self.config.every and self.write_nbest:
            raise ValueError("--write-nbest is for methods that list texts, not for --method all")
        listless = [method for method in self.config.methods if method not in able]
        if self.write_nbest and listless:
            raise ValueError(f"method {listless[0]} makes no n-best lists; {', '.join(able)} do")


def read_job(arguments: Sequence[str] | None = None) -> DecodeJob:
    """The job that a command line asks for.

    Raises:
        ValueError: options that do not go together.
    """
    reader = parser(f"{__doc__}\nSearch methods (--method):\n{registry.listing()}")
    add_options(reader, "decode")
    found: argparse.Namespace = reader.parse_args(arguments)
    return DecodeJob(
        config=decode_config(found, "decode"),
        splits=tuple(dict.fromkeys(found.split)),
        branches=tuple(dict.fromkeys(found.branch)),
        write_nbest=found.write_nbest,
    )


def main() -> None:
    """The program."""
    run(read_job())


def run(job: DecodeJob) -> None:
    """Decodes everything that the job asks for, and writes it."""
    from dualasr_lib.programs.data import open_data
    from dualasr_lib.recognition.decode_setup import DecodeSetup

    setup = DecodeSetup(job.config, open_data)
    work = [(branch, method) for branch in job.branches for method in setup.methods(branch)]
    for branch, method in work:
        _decode(job, setup, branch, method)


def _decode(job: DecodeJob, setup: "DecodeSetup", branch: "Branch", method: str) -> None:
    """One branch and one method, all splits."""
    from dualasr_lib.decoding.offline import decode_batches
    from dualasr_lib.decoding.summary import RunInfo, describe, offline_summary
    from dualasr_lib.decoding.writer import write_nbest
    from dualasr_lib.programs.data import identity_of, open_data
    from dualasr_lib.recognition.scoring import scoring_of

    ready = setup.offline(branch, method)
    name, detokenise = ready.name, setup.trained.detokenise
    directory = name.directory(job.config.results_dir)
    data = open_data(setup.trained, job.config.data_dir)
    folder = identity_of(job.config.data_dir)
    check_place(directory, job.splits, folder)
    for split in valid_first(data.folder, job.splits):
        progress = Progress(f"{split} {branch} {name.method}", "utterances", data.size(split))
        decoded = decode_batches(
            data.split_batches(split),
            setup.hear(branch),
            ready.search,
            detokenise,
            partial(_count, progress),
        )
        scoring = scoring_of(data.folder, split, folder)
        info = RunInfo(split, branch, name.method, ready.params, name.variant, scoring)
        summary, fit = offline_summary(info, decoded), is_valid(data.folder, split)
        done = deliver(directory, decoded.hypotheses, summary, ready.calibrator, detokenise, fit)
        if job.write_nbest:
            write_nbest(directory, split, done.hypotheses, detokenise, ready.scales.total)
        progress.close(f"{describe(summary)}, {done.files.summary}")


def _count(progress: Progress, done: "Sequence[Hypothesis]") -> None:
    progress.add(len(done))
