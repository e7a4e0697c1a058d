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
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.parameters import EncoderCounts, encoder_counts, joint_counts
from benchmarks.report import write_json
from benchmarks.workloads import SMALL, Setting, model_values

from dualasr_lib.core.program import run_program
from dualasr_lib.core.table import markdown
from dualasr_lib.data.folder import DataFolder
from dualasr_lib.model.joint import BRANCHES

_VOCAB = 500
PUBLISHED = {
    "small": {"encoder": SMALL, "ctc_symmetric": 22.1e6},
    "medium": {"ctc_symmetric": 64.3e6},
    "large": {"ctc_symmetric": 147.0e6},
}
"""Name of the file -> published parameters of what `EncoderCounts` calls so."""
STEPS: dict[str, tuple[str, ...]] = {
    "joint": (),
    "streaming alone": ('model.branches=["streaming"]',),
    "full alone": ('model.branches=["full"]',),
    "shared decoder": ('model.heads.shared=["ctc", "attention"]',),
}
"""What conf/standalone_streaming.toml, standalone_full.toml and shared_decoder.toml change."""
_WHAT = {
    "encoder": "streaming encoder, no head",
    "ctc_causal": f"with CTC head, V = {_VOCAB}",
    "ctc_symmetric": f"full-context convolutions, CTC head, V = {_VOCAB}",
}


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
    add("--json", type=Path, metavar="FILE", help="write all numbers there too")
    return parser.parse_args()


def encoder_lines(name: str, counts: EncoderCounts) -> list[tuple[str, ...]]:
    """Lines of the table of encoders."""
    published = PUBLISHED.get(name.rpartition("/")[2], {})
    lines = []
    for key, what in _WHAT.items():
        count, known = getattr(counts, key), published.get(key)
        compared = ("", "")
        if known is not None:
            compared = (f"{known / 1e6:.2f}", f"{100.0 * (count / known - 1.0):+.2f}")
        lines.append((name, what, f"{count / 1e6:.3f}", *compared))
    return lines


def joint_lines(counts: Mapping[str, Mapping[str, int]]) -> list[tuple[str, ...]]:
    """The table of joint models: a line per part, a column per configuration, millions."""
    parts = list(dict.fromkeys(part for count in counts.values() for part in count))
    lines = [("part, millions", *counts)]
    for part in parts:
        found = (count.get(part, 0) for count in counts.values())
        lines.append((part, *(f"{number / 1e6:.3f}" if number else "-" for number in found)))
    totals = (sum(count.values()) for count in counts.values())
    return [*lines, ("total", *(f"{number / 1e6:.3f}" for number in totals))]


def step_lines(settings: Mapping[str, Setting]) -> list[tuple[str, ...]]:
    """A line per configuration: all parameters, millions, of the joint model and of each step."""
    lines = [("configuration", *STEPS)]
    for name, setting in settings.items():
        lines.append((name, *(f"{total(setting, step) / 1e6:.1f}" for step in STEPS)))
    return lines


def total(setting: Setting, step: str) -> int:
    """Parameters of a step of `STEPS`, or of "joint", all together."""
    changes = (*setting.overrides, *STEPS[step])
    return sum(joint_counts(replace(setting, overrides=changes)).values())


def names_of(paths: Sequence[Path]) -> list[str]:
    """Names of files, with those of their folders, or whole, where these are not unique."""
    for names in ([path.stem for path in paths], [f"{p.parent.name}/{p.stem}" for p in paths]):
        if len(set(names)) == len(names):
            return names
    return [str(path.resolve()) for path in paths]


def main() -> None:
    arguments = parse_arguments()
    tokens = arguments.vocab_size
    if arguments.data_dir is not None:
        tokens = DataFolder.read(arguments.data_dir).tokens.vocab_size
    encoders: dict[str, EncoderCounts] = {}
    joint: dict[str, Setting] = {}
    for name, path in zip(names_of(arguments.config), arguments.config):
        setting = Setting(config=path, overrides=tuple(arguments.set), vocab_size=tokens)
        encoders[name] = encoder_counts(setting, _VOCAB)
        if {"full", "heads", "branches"} & model_values(setting)["model"].keys():
            joint[name] = setting
    lines = [("size", "what", "millions", "published", "difference %")]
    for name, counts in encoders.items():
        lines += encoder_lines(name, counts)
    print(markdown(lines))
    parts = {name: joint_counts(setting) for name, setting in joint.items()}
    if joint:
        print(f"\nJoint models, V = {tokens}\n\n{markdown(joint_lines(parts))}")
    whole = {name: s for name, s in joint.items() if both_branches(s)}
    if whole:
        print(f"\nWith the steps of the paper, millions\n\n{markdown(step_lines(whole))}")
    if arguments.json:
        plain: dict[str, Any] = {name: counts._asdict() for name, counts in encoders.items()}
        write_json(arguments.json, {"encoders": plain, "joint": parts})


def both_branches(setting: Setting) -> bool:
    """Whether a configuration has two branches, which steps take apart."""
    return {"streaming", "full"} <= {*model_values(setting)["model"].get("branches", BRANCHES)}


if __name__ == "__main__":
    run_program(main)
