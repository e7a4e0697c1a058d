#!/usr/bin/env python3
"""Decodes splits with one branch of a trained model and one search method.

    egs/csj/decode.py --exp-dir EXP --data-dir DATA --split eval1 --branch full --method 1best

Writes EXP/decode/<branch>-<method>/{recogs,errs,summary}-<split>. The model comes from the newest
checkpoint; --epoch E takes another one, --avg K the mean over the K epochs up to it.
"""

import argparse

from dualasr_lib.data.datamodule import DataModule
from dualasr_lib.decoding.offline import decode_batches
from dualasr_lib.decoding.summary import RunInfo, describe, offline_summary
from dualasr_lib.decoding.writer import write_results
from dualasr_lib.model.joint import BRANCHES
from dualasr_lib.program import Progress, run_program
from dualasr_lib.recogniser import add_recogniser_arguments, load_recogniser
from dualasr_lib.searches import offline_search


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_recogniser_arguments(parser)
    parser.add_argument("--branch", choices=BRANCHES, required=True)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    recogniser, chunk = load_recogniser(arguments)
    recogniser.model.require(arguments.branch)
    search, beams = offline_search(arguments.method, arguments.beam)
    data = DataModule(recogniser.config.data, arguments.data_dir, recogniser.tokenizer)
    params = {**recogniser.describe(arguments.branch, chunk), **beams}
    directory = arguments.exp_dir / "decode" / f"{arguments.branch}-{arguments.method}"
    for split in arguments.split:
        progress = Progress(f"{split} {arguments.branch} {arguments.method}", "utterances")
        decoded = decode_batches(
            data.split_batches(split),
            lambda batch: recogniser.log_probs(batch, arguments.branch, chunk),
            search,
            recogniser.detokenise,
            lambda hypotheses, progress=progress: progress.add(len(hypotheses)),
        )
        info = RunInfo(split, arguments.branch, arguments.method, params)
        summary = offline_summary(info, decoded)
        files = write_results(directory, decoded.hypotheses, summary)
        progress.close(f"{describe(summary)}, {files.summary}")


if __name__ == "__main__":
    run_program(main)
