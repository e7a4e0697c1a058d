#!/usr/bin/env python3
"""Counts parameters of configurations, part by part, beside the published sizes.

    tools/count_parameters.py CONF.toml [CONF.toml ...] [--vocab-size 3266] [--json FILE]

A configuration with full-context stacks or decoders is counted as a joint model. The streaming
encoder of every one is also counted alone and with a CTC head of 500 tokens, chunk-causal as it is
here and with the symmetric convolutions of the published full-context models. Files called small,
medium and large are compared with those (results of the public Zipformer recipes: CTC only, 500
tokens).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    add("config", type=Path, nargs="+", help="TOML files with a [model] section")
    add("--set", nargs="*", default=[], metavar="KEY=VALUE", help="on top of each")
    add("--vocab-size", type=int, default=3266, help="tokens of the joint models")
    add("--json", type=Path, metavar="FILE", help="write all numbers there too")
    return parser.parse_args()


def names_of(paths: Sequence[Path]) -> list[str]:
    """Names of files, with those of their folders, or whole, where these are not unique."""
    for names in ([path.stem for path in paths], [f"{p.parent.name}/{p.stem}" for p in paths]):
        if len(set(names)) == len(names):
            return names
    return [str(path.resolve()) for path in paths]


def main() -> None:
    arguments = parse_arguments()
    from bench.parameters import encoder_counts, encoder_lines, joint_counts, joint_lines
    from bench.report import write_json  # what is heavy, after the options
    from bench.workloads import Setting, model_values

    encoders: dict[str, EncoderCounts] = {}
    joint: dict[str, dict[str, int]] = {}
    for name, path in zip(names_of(arguments.config), arguments.config):
        setting = Setting(
            config=path, overrides=tuple(arguments.set), vocab_size=arguments.vocab_size
        )
        encoders[name] = encoder_counts(setting, _VOCAB)
        if {"full", "heads", "branches"} & model_values(setting)["model"].keys():
            joint[name] = joint_counts(setting)
    lines: list[tuple[str, ...]] = [("size", "what", "millions", "published", "difference %")]
    for name, counts in encoders.items():
        lines += encoder_lines(name, counts, _VOCAB)
    print(markdown(lines))
    if joint:
        print(f"\nJoint models, V = {arguments.vocab_size}\n\n{markdown(joint_lines(joint))}")
    if arguments.json:
        plain: dict[str, Any] = {name: counts._asdict() for name, counts in encoders.items()}
        write_json(arguments.json, {"encoders": plain, "joint": joint})


if __name__ == "__main__":
    run_program(main)
