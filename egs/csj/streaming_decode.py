#!/usr/bin/env python3
"""Simulates streaming: audio in chunks, partial texts as they come, many streams in parallel.

    egs/csj/streaming_decode.py --exp-dir EXP --data-dir DATA --split eval1 --chunk-ms 320 \\
        --num-streams 8 [--realtime] [--show]

Samples go through online features, the `step` of the encoder and an online search; nothing is
computed on whole utterances. Writes EXP/decode/streaming-online-<method>/{recogs,errs,summary}-*,
the summary with latencies. --realtime feeds audio at its natural speed and reads the wall clock.
"""

import argparse

from dualasr_lib.data.datamodule import DataModule
from dualasr_lib.decoding.hypothesis import Emission
from dualasr_lib.decoding.streaming import StreamingConfig, decode_streams
from dualasr_lib.decoding.summary import RunInfo, describe, streaming_summary
from dualasr_lib.decoding.writer import write_results
from dualasr_lib.program import Progress, run_program
from dualasr_lib.recogniser import add_recogniser_arguments, load_recogniser
from dualasr_lib.searches import online_search


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_recogniser_arguments(parser)
    parser.add_argument("--num-streams", type=int, default=8, help="streams in parallel")
    parser.add_argument("--realtime", action="store_true", help="feed audio at its natural speed")
    parser.add_argument("--show", action="store_true", help="print partial texts as they come")
    return parser.parse_args()


def print_partial(utterance: str, emission: Emission) -> None:
    print(f"{utterance}  {emission.shown_seconds:7.2f} s  {emission.text}", flush=True)


def main() -> None:
    arguments = parse_arguments()
    recogniser, chunk = load_recogniser(arguments)
    path = recogniser.streaming(chunk)
    search, beams = online_search(arguments.method, arguments.beam, recogniser.tokenizer.vocab_size)
    data = DataModule(recogniser.config.data, arguments.data_dir, recogniser.tokenizer)
    config = StreamingConfig(num_streams=arguments.num_streams, realtime=arguments.realtime)
    params = {**recogniser.describe("streaming", chunk), **beams}
    directory = arguments.exp_dir / "decode" / f"streaming-online-{arguments.method}"
    for split in arguments.split:
        utterances = data.split_cuts(split)
        progress = Progress(f"{split} streaming", "utterances", len(utterances))
        run = decode_streams(
            utterances,
            path,
            search,
            recogniser.detokenise,
            config,
            print_partial if arguments.show else None,
            lambda _, progress=progress: progress.add(1),
        )
        info = RunInfo(split, "streaming", f"online-{arguments.method}", params)
        summary = streaming_summary(info, run, path)
        files = write_results(directory, run.hypotheses, summary)
        progress.close(f"{describe(summary)}, {files.summary}")


if __name__ == "__main__":
    run_program(main)
