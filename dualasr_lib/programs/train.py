"""Trains the joint model on a folder that prepare.sh made; run again, it goes on where it stopped.

    train.py --config egs/csj/conf/demo.toml --data-dir DATA --exp-dir EXP \\
        [--base egs/conf/small.toml] [--set training.max_steps=100 ...]
    torchrun --nproc_per_node 8 egs/csj/train.py ...         (one process per device)

The data folder says what it is, so every recipe's train.py is this program.

The steps of the paper (conf/multi_decoder.toml, sp_kd.toml ...) say only in what they differ from
the file they include; --base puts another one in its place.

The exit code is 0 when training is finished, 130 when a signal stopped it and everything is saved.
torchrun of torch 1.13.1 does not start on Python 3.11: several devices need the torch 2 lane.
"""

import argparse
import sys
from pathlib import Path

from dualasr_lib.core.config import load, read_toml
from dualasr_lib.core.program import INTERRUPTED

__all__ = ["main"]


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, help="TOML file, e.g. conf/demo.toml")
    parser.add_argument("--base", type=Path, metavar="FILE",
                        help="start from FILE, not from what the config file includes")  # fmt: skip
    parser.add_argument("--data-dir", type=Path, required=True, help="what prepare.sh wrote")
    parser.add_argument("--exp-dir", type=Path, required=True, help="checkpoints and logs go here")
    parser.add_argument("--set", nargs="*", action="extend", default=[], metavar="KEY=VALUE",
                        help="changes to the configuration, e.g. training.seed=1")  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser.parse_args()


def main() -> None:
    """The program."""
    arguments = _parse_arguments()
    read_toml(arguments.config, arguments.base)  # a file that is missing or damaged is said first
    # What is heavy, after the options are read:
    from dualasr_lib.configuration import ExperimentConfig
    from dualasr_lib.core.device import local_device
    from dualasr_lib.experiment import Experiment
    from dualasr_lib.training.distributed import process_group

    config = load(ExperimentConfig, arguments.config, arguments.set, arguments.base)
    device = local_device(arguments.device)
    with process_group(device) as world:
        experiment = Experiment(config, arguments.data_dir)
        result = experiment.fit(experiment.run(arguments.exp_dir, world), device)
    if not result.finished:
        print(f"stopped and saved at step {result.step}; the same command goes on", flush=True)
        sys.exit(INTERRUPTED)
