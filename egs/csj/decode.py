#!/usr/bin/env python3
"""Decodes splits with one branch of a trained model and one search method.

    egs/csj/decode.py --exp-dir EXP --data-dir DATA --split eval1 --branch full --method attention

Writes EXP/decode/<branch>-<method>/{recogs,errs,summary}-<split>. The model comes from the newest
checkpoint; --epoch E takes another one, --avg K the mean over the K epochs up to it.

Methods: greedy 1best nbest nbest-oracle hlg nbest-lm lattice-lm attention. Those that weigh scores
take their scales from --scales, or tune them on split valid and keep them in scales.json.
"""

import argparse

from dualasr_lib.decode_setup import DecodeSetup, add_decode_arguments
from dualasr_lib.decoding.offline import decode_batches
from dualasr_lib.decoding.summary import RunInfo, describe, offline_summary
from dualasr_lib.decoding.writer import write_nbest, write_results
from dualasr_lib.model.joint import BRANCHES
from dualasr_lib.program import Progress, run_program
from dualasr_lib.searches import METHODS, NBEST_METHODS


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_decode_arguments(parser, METHODS)
    parser.add_argument("--branch", choices=BRANCHES, required=True)
    parser.add_argument("--write-nbest", action="store_true", help="also nbest-<split>.json")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.write_nbest and arguments.method not in NBEST_METHODS:
        raise ValueError(
            f"method {arguments.method} makes no n-best lists; {', '.join(NBEST_METHODS)} do"
        )
    setup = DecodeSetup(arguments)
    ready = setup.offline(arguments.branch, arguments.method, arguments.beam)
    detokenise = setup.recogniser.detokenise
    for split in arguments.split:
        progress = Progress(f"{split} {arguments.branch} {arguments.method}", "utterances")
        decoded = decode_batches(
            setup.data.split_batches(split),
            setup.hear(arguments.branch),
            ready.search,
            detokenise,
            lambda hypotheses, progress=progress: progress.add(len(hypotheses)),
        )
        method = ready.directory.name.removeprefix(f"{arguments.branch}-")
        info = RunInfo(split, arguments.branch, method, ready.params)
        summary = offline_summary(info, decoded)
        files = write_results(ready.directory, decoded.hypotheses, summary)
        if arguments.write_nbest:
            hypotheses, total = decoded.hypotheses, ready.scales.total
            write_nbest(ready.directory, split, hypotheses, detokenise, total)
        progress.close(f"{describe(summary)}, {files.summary}")


if __name__ == "__main__":
    run_program(main)
