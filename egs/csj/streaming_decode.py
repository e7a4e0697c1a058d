#!/usr/bin/env python3
"""Simulates streaming: audio in chunks, partial texts as they come, many streams in parallel.

    egs/csj/streaming_decode.py --exp-dir EXP --data-dir DATA --split eval1 --chunk-ms 320 \\
        --num-streams 8 [--method greedy|1best|hlg] [--two-pass] [--realtime] [--show]

Samples go through online features, the `step` of the encoder and an online search; nothing is
computed on whole utterances. Writes EXP/decode/streaming-online-<method>/{recogs,errs,summary}-*,
the summary with latencies. --realtime feeds audio at its natural speed and reads the wall clock.

--two-pass rewrites each text when its audio has ended: the full-context stacks read the streaming
states that are there already, and their attention decoder chooses. Results go to EXP/decode/
full-two-pass/; the summary has the CER of the first pass and the time that the second one took.
"""

import argparse
from pathlib import Path

from dualasr_lib.core.program import Progress, run_program
from dualasr_lib.decoding.hypothesis import Emission, Hypothesis
from dualasr_lib.decoding.streaming import StreamingConfig, Watcher, decode_streams
from dualasr_lib.decoding.summary import RunInfo, describe, streaming_summary
from dualasr_lib.decoding.writer import write_results
from dualasr_lib.programs.screen import Screen
from dualasr_lib.recognition.decode_setup import DecodeSetup, add_decode_arguments
from dualasr_lib.recognition.searches import ONLINE_METHODS


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_decode_arguments(parser, ONLINE_METHODS)
    parser.add_argument("--num-streams", type=int, default=8, help="streams in parallel")
    parser.add_argument("--two-pass", action="store_true", help="full context at each end")
    parser.add_argument("--second-beam", nargs="*", default=[], metavar="KEY=VALUE",
                        help="options of the second pass, e.g. num_paths=20")  # fmt: skip
    parser.add_argument("--second-scales", nargs="+", metavar="NAME=VALUE",
                        help="of the second pass; default: tuned on valid, kept")  # fmt: skip
    parser.add_argument("--realtime", action="store_true", help="feed audio at its natural speed")
    parser.add_argument("--show", action="store_true", help="print texts as they grow, then the\n"
                        "final one, marked where a second pass changed it")  # fmt: skip
    return parser.parse_args()


def shown_on(screen: Screen, progress: Progress) -> Watcher:
    """Tells the screen what is heard; a final text is shown when a user would see it."""

    def on_partial(utterance: str, emission: Emission) -> None:
        screen.partial(utterance, emission.shown_seconds, emission.text)

    def on_final(final: Hypothesis) -> None:
        seconds = final.duration + (final.final_seconds or 0.0)
        screen.final(final.id, seconds, final.first_pass_text, final.text)
        screen.end(final.id)
        progress.add(1)

    return Watcher(on_partial, on_final)


def main() -> None:
    arguments = parse_arguments()
    setup = DecodeSetup(arguments)
    search, params, method = setup.online(arguments.method, arguments.beam)
    branch, second = "streaming", None
    if arguments.two_pass:
        second, second_params, method = setup.second_pass(arguments.second_beam)
        branch, params = "full", {**params, "second_pass": second_params}
    screen = Screen()
    if arguments.show:
        screen.say(f"weights: {setup.recogniser.source}; {method}")
    path = setup.recogniser.streaming(setup.chunk)  # last: tuning hears whole utterances
    config = StreamingConfig(num_streams=arguments.num_streams, realtime=arguments.realtime)
    directory: Path = arguments.exp_dir / "decode" / f"{branch}-{method}"
    for split in arguments.split:
        utterances = setup.data.split_cuts(split)
        progress = Progress(f"{split} streaming", "utterances", len(utterances))
        watcher = Watcher(on_final=lambda _, progress=progress: progress.add(1))
        if arguments.show:
            watcher = shown_on(screen, progress)
        run = decode_streams(
            utterances,
            path,
            search,
            setup.recogniser.detokenise,
            config,
            second,
            watcher,
        )
        info = RunInfo(split, branch, method, params)
        summary = streaming_summary(info, run, path)
        files = write_results(directory, run.hypotheses, summary)
        progress.close(f"{describe(summary)}, {files.summary}")


if __name__ == "__main__":
    run_program(main)
