#!/usr/bin/env python3
"""Trains a model on a folder that prepare.sh made: see `dualasr_lib.programs.train`, or --help.

egs/tedlium3/train.py --config egs/tedlium3/conf/small.toml --data-dir DATA --exp-dir EXP
"""

from dualasr_lib.core.program import run_program
from dualasr_lib.programs.train import main

if __name__ == "__main__":
    run_program(main, "train")
