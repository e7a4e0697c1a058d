#!/usr/bin/env python3
"""Decodes splits with a trained model: its branches, and search methods, that are asked for.

    egs/csj/decode.py --exp-dir EXP --data-dir DATA --split eval1 --branch full --method attention
    egs/csj/decode.py ... --split valid eval1 --branch streaming full --method 1best attention

Writes EXP/decode/<branch>-<method>/{recogs,errs,summary}-<split>. The model comes from the newest
checkpoint; --epoch E takes another one, --avg K the mean over the K epochs up to it.

Methods: greedy 1best nbest nbest-oracle hlg nbest-lm lattice-lm attention. Those that weigh scores
take their scales from --scales, or tune them on split valid and keep them in scales.json.
"""

import argparse
from argparse import Namespace
from itertools import product

from dualasr_lib.core.program import Progress, run_program
from dualasr_lib.decoding.offline import decode_batches
from dualasr_lib.decoding.summary import RunInfo, describe, offline_summary
from dualasr_lib.decoding.writer import write_nbest, write_results
from dualasr_lib.model.joint import BRANCHES, Branch
from dualasr_lib.recognition.decode_setup import DecodeSetup, add_decode_arguments
from dualasr_lib.recognition.scoring import scoring_of
from dualasr_lib.recognition.searches import METHODS, NBEST_METHODS, Method


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_decode_arguments(parser, METHODS, several=True)
    parser.add_argument("--branch", choices=BRANCHES, nargs="+", required=True)
    parser.add_argument("--write-nbest", action="store_true", help="also nbest-<split>.json")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    listless = [method for method in arguments.method if method not in NBEST_METHODS]
    if arguments.write_nbest and listless:
        raise ValueError(
            f"method {listless[0]} makes no n-best lists; {', '.join(NBEST_METHODS)} do"
        )
    setup = DecodeSetup(arguments)
    for branch in arguments.branch:
        setup.recogniser.model.require(branch)
    for branch, method in product(arguments.branch, arguments.method):
        decode(setup, branch, method, arguments)


def decode(setup: DecodeSetup, branch: Branch, method: Method, arguments: Namespace) -> None:
    """One branch and one method, all splits."""
    ready = setup.offline(branch, method, arguments.beam)
    detokenise = setup.recogniser.detokenise
    for split in arguments.split:
        progress = Progress(f"{split} {branch} {method}", "utterances")
        decoded = decode_batches(
            setup.data.split_batches(split),
            setup.hear(branch),
            ready.search,
            detokenise,
            lambda hypotheses, progress=progress: progress.add(len(hypotheses)),
        )
        name = ready.directory.name.removeprefix(f"{branch}-")
        scoring = scoring_of(setup.data.folder, split)
        summary = offline_summary(RunInfo(split, branch, name, ready.params, scoring), decoded)
        files = write_results(ready.directory, decoded.hypotheses, summary)
        if arguments.write_nbest:
            hypotheses, total = decoded.hypotheses, ready.scales.total
            write_nbest(ready.directory, split, hypotheses, detokenise, total)
        progress.close(f"{describe(summary)}, {files.summary}")


if __name__ == "__main__":
    run_program(main)
