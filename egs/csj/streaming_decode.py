#!/usr/bin/env python3
"""Simulates streaming, chunk by chunk: see `dualasr_lib.programs.streaming_decode`, or --help.

egs/csj/streaming_decode.py --exp-dir EXP --data-dir DATA --split eval1 --chunk-ms 320
"""

from dualasr_lib.core.program import run_program
from dualasr_lib.programs.streaming_decode import main

if __name__ == "__main__":
    run_program(main, "data")
