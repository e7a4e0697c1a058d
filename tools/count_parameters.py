#!/usr/bin/env python3
"""Counts parameters of configurations, part by part, beside the published sizes.

    tools/count_parameters.py --config CONF.toml [CONF.toml ...] [--data-dir DATA | --vocab-size N]
        [--json FILE]

A configuration with full-context stacks or heads is counted as a joint model, part by part, and as
what the steps of the paper make of it; its heads have the tokens of DATA, or N. The streaming
encoder of every one is also counted alone and with a CTC head of 500 tokens, chunk-causal as it is
here and with the symmetric convolutions of the published full-context models. Files called small,
medium and large are compared with those (results of the public Zipformer recipes: CTC only, 500
tokens).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dualasr_lib.core.files import output_file
from dualasr_lib.core.program import run_program
from dualasr_lib.core.table import markdown

if TYPE_CHECKING:
    from bench.parameters import EncoderCounts


_VOCAB = 500


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--config", type=Path, nargs="+", required=True, help="TOML files with a [model] section")
    add("--set", nargs="*", default=[], metavar="KEY=VALUE", help="on top of each")
    tokens = parser.add_mutually_exclusive_group()
    tokens.add_argument("--data-dir", type=Path, help="what prepare.sh wrote: its tokens")
    tokens.add_argument("--vocab-size", type=int, default=3266, metavar="N",
                        help="tokens of the joint models; default: 3266, as CSJ has")  # fmt: skip
    add("--json", type=output_file, metavar="FILE", help="write all numbers there too")
    return parser.parse_args()


def names_of(paths: Sequence[Path]) -> list[str]:
    """Names of files, with those of their folders, or whole, where these are not unique."""
    for names in ([path.stem for path in paths], [f"{p.parent.name}/{p.stem}" for p in paths]):
        if len(set(names)) == len(names):
            return names
    return [str(path.resolve()) for path in paths]


def main() -> None:
    arguments = parse_arguments()
    from bench import parameters as counting  # what is heavy, after the options
    from bench.report import write_json
    from bench.workloads import Setting, model_values

    tokens = arguments.vocab_size
    if arguments.data_dir is not None:
        from dualasr_lib.data.folder import DataFolder

        tokens = DataFolder.read(arguments.data_dir).tokens.vocab_size
    encoders: dict[str, EncoderCounts] = {}
    joint: dict[str, Setting] = {}
    for name, path in zip(names_of(arguments.config), arguments.config):
        setting = Setting(config=path, overrides=tuple(arguments.set), vocab_size=tokens)
        encoders[name] = counting.encoder_counts(setting, _VOCAB)
        if {"full", "heads", "branches"} & model_values(setting)["model"].keys():
            joint[name] = setting
    lines: list[tuple[str, ...]] = [("size", "what", "millions", "published", "difference %")]
    for name, counts in encoders.items():
        lines += counting.encoder_lines(name, counts, _VOCAB)
    print(markdown(lines))
    parts = {name: counting.joint_counts(setting) for name, setting in joint.items()}
    if joint:
        print(f"\nJoint models, V = {tokens}\n\n{markdown(counting.joint_lines(parts))}")
    whole = {name: s for name, s in joint.items() if counting.has_both_branches(s)}
    if whole:
        table = markdown(counting.step_lines(whole))
        print(f"\nThe same and the steps of the paper, V = {tokens}, millions\n\n{table}")
    if arguments.json:
        plain: dict[str, Any] = {name: counts._asdict() for name, counts in encoders.items()}
        write_json(arguments.json, {"encoders": plain, "joint": parts})


if __name__ == "__main__":
    run_program(main)
