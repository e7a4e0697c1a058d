#!/usr/bin/env python3
"""Trains a model on a folder that prepare.sh made: see `dualasr_lib.programs.train`, or --help.

egs/librispeech/train.py --config egs/librispeech/conf/small.toml --data-dir DATA --exp-dir EXP
"""

from dualasr_lib.core.program import run_program
from dualasr_lib.programs.train import main

if __name__ == "__main__":
    run_program(main, "train")
