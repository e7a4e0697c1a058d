#!/usr/bin/env python3
"""Decodes splits with a trained model: see `dualasr_lib.programs.decode`, or --help.

egs/csj/decode.py --exp-dir EXP --data-dir DATA --split eval1 --branch full --method attention
"""

from dualasr_lib.core.program import run_program
from dualasr_lib.programs.decode import main

if __name__ == "__main__":
    run_program(main, "data")
