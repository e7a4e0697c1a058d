#!/usr/bin/env python3
"""Simulates streaming, chunk by chunk: see `dualasr_lib.programs.streaming_decode`, or --help.

egs/tedlium3/streaming_decode.py --exp-dir EXP --data-dir DATA --split test --chunk-ms 320
"""

from dualasr_lib.core.program import run_program
from dualasr_lib.programs.streaming_decode import main

if __name__ == "__main__":
    run_program(main, "data")
