"""Trains the joint model on a folder that prepare.sh made; run again, it goes on where it stopped.

    train.py --config egs/csj/conf/demo.toml --data-dir DATA --exp-dir EXP \\
        [--base egs/conf/small.toml] [--set training.max_steps=100 ...] [--init-from FILE]
    train.py ... --processes 2                               (several on this machine's CPU)
    torchrun --nproc_per_node 8 egs/csj/train.py ...         (one process per device)

The data folder says what it is, so every recipe's train.py is this program.

The steps of the paper (conf/multi_decoder.toml, sp_kd.toml ...) say only in what they differ from
the file they include; --base puts another one in its place.

The exit code is 0 when training is finished, 130 when a signal stopped it and everything is saved.
torchrun of torch 1.13.1 does not start on Python 3.11: several devices need the torch 2 lane.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from dualasr_lib.core.config import load, read_toml
from dualasr_lib.core.files import output_folder
from dualasr_lib.core.program import INTERRUPTED
from dualasr_lib.programs.options import parser
from dualasr_lib.training.launch import run_processes

__all__ = ["main"]


def _parse_arguments() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--config", type=Path, required=True,
                         help="TOML file, e.g. egs/csj/conf/demo.toml")  # fmt: skip
    options.add_argument("--base", type=Path, metavar="FILE",
                        help="start from FILE, not from what the config file includes")  # fmt: skip
    options.add_argument("--data-dir", type=Path, required=True, help="what prepare.sh wrote")
    options.add_argument(
        "--exp-dir", type=output_folder, required=True, help="checkpoints and logs go here"
    )
    options.add_argument("--set", nargs="*", action="extend", default=[], metavar="KEY=VALUE",
                        help="changes to the configuration, e.g. training.seed=1")  # fmt: skip
    options.add_argument("--init-from", type=Path, metavar="FILE",
                        help="begin with what fits of a bundle or checkpoint")  # fmt: skip
    options.add_argument("--device", default="auto", help="auto, cpu or cuda")
    options.add_argument("--processes", type=int, default=1, metavar="N",
                         help="so many on this machine share each step, max_duration each;\n"
                        "default: 1 (GPUs and several machines: torchrun)")  # fmt: skip
    return options.parse_args()


def main() -> None:
    """The program."""
    arguments = _parse_arguments()
    read_toml(arguments.config, arguments.base)  # a file that is missing or damaged is said first
    if arguments.processes != 1 and "WORLD_SIZE" not in os.environ:
        command = [sys.executable, *sys.argv]
        sys.exit(run_processes(command, arguments.processes, os.environ))
    # What is heavy, after the options are read:
    from dualasr_lib.configuration import ExperimentConfig
    from dualasr_lib.core.device import local_device
    from dualasr_lib.experiment import Experiment
    from dualasr_lib.recognition.initial import read_trained
    from dualasr_lib.training.distributed import process_group

    changes = list(arguments.set)
    if arguments.init_from is not None:
        changes.append(f"initial.path={json.dumps(str(arguments.init_from))}")
    config = load(ExperimentConfig, arguments.config, changes, arguments.base)
    device = local_device(arguments.device)
    with process_group(device, config.training.patience) as world:
        experiment = Experiment(config, arguments.data_dir, read_trained)
        result = experiment.fit(experiment.run(arguments.exp_dir, world), device)
    if not result.finished:
        print(f"stopped and saved at step {result.step}; the same command goes on", flush=True)
        sys.exit(INTERRUPTED)
