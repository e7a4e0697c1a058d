#!/usr/bin/env python3
"""Decodes splits with a trained model: see `dualasr_lib.programs.decode`, or --help.

egs/own/decode.py --exp-dir EXP --data-dir DATA --split test --branch full
"""

from dualasr_lib.core.program import run_program
from dualasr_lib.programs.decode import main

if __name__ == "__main__":
    run_program(main, "data")
