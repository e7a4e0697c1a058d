#!/usr/bin/env python3
"""How large a comparison must be: the noise of the runs on record, and the power of new ones.

    tools/analysis/power.py --results egs/csj/figures/matrix-noisy.json [--method 1best]
        [--cell sp-kd] [--baseline standalone-{branch}] [--effects streaming=0.04 full=0.06]
        [--picture FILE.png]

First the variance of the relative CERR of a cell against its baseline, from the errors of every
utterance and seed on record: what other utterances do, what other seeds do, and what both do
together (an analysis of variance, two ways). Then the power: how often a true gain comes out with
p < 0.05 by the test that run_matrix.py makes, if there were so many test characters and seeds, and
seeds were as noisy as on record, or a quarter or a tenth of it in variance.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dualasr_lib.core.files import output_file
from dualasr_lib.core.program import run_program
from dualasr_lib.core.table import markdown

if TYPE_CHECKING:
    from analysis.power_model import Budget

_CHARACTERS = (6_000, 12_000, 25_000, 50_000, 100_000)
_SEEDS = (3, 5, 8, 12, 16, 24)
_QUIETER = (1.0, 0.25, 0.1)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--results", type=Path, required=True, help="results.json of run_matrix.py")
    add("--method", default="1best", help="search method; default: 1best")
    add("--cell", default="sp-kd", help="default: sp-kd")
    add("--baseline", default="standalone-{branch}", help="default: standalone-{branch}")
    add("--effects", nargs="+", default=["streaming=0.04", "full=0.06"], metavar="BRANCH=GAIN",
        help="true relative CERR; default: streaming=0.04 full=0.06")  # fmt: skip
    add("--trials", type=int, default=4000, help="simulated experiments of each kind")
    add("--picture", type=output_file, metavar="FILE", help="draw the power there too")
    return parser.parse_args()


def effects(texts: Sequence[str]) -> dict[str, float]:
    """Branch -> true gain.

    Raises:
        ValueError: a text is not branch=gain, the gain between 0 and 1.
    """
    found = {}
    for text in texts:
        branch, _, number = text.partition("=")
        try:
            gain = float(number)
        except ValueError:
            gain = float("nan")
        if branch not in ("streaming", "full") or not 0 < gain < 1:
            raise ValueError(
                f"--effects must be streaming=GAIN or full=GAIN, 0 < GAIN < 1, but has {text!r}"
            )
        found[branch] = gain
    return found


def main() -> None:
    arguments = parse_arguments()
    gains = effects(arguments.effects)
    if arguments.trials < 1:
        raise ValueError(f"--trials must be at least 1, but is {arguments.trials}")
    sys.path.append(str(Path(__file__).resolve().parent.parent))  # for analysis.*
    from analysis.matrix.results import read_results
    from analysis.power_model import budget, grid

    results = read_results(arguments.results)
    found = {
        branch: budget(results, arguments.cell, arguments.baseline, branch, arguments.method)
        for branch in gains
    }
    print(f"### Noise of {arguments.cell} against {arguments.baseline}, {arguments.method}\n")
    print(noise_table(found))
    powers = {}
    for branch, gain in gains.items():
        for part in _QUIETER:
            noise = found[branch].noise.with_seeds(part)
            powers[branch, part] = grid(noise, gain, _CHARACTERS, _SEEDS, arguments.trials)
    for (branch, part), power in powers.items():
        print(f"\n### Power, {branch}: a gain of {100 * gains[branch]:g} %, "
              f"variance of seeds x {part:g}\n")  # fmt: skip
        lines = [("test characters", *(f"{seeds} seeds" for seeds in _SEEDS))]
        for characters, row in zip(_CHARACTERS, power):
            lines.append((f"{characters:,}", *(f"{100 * p:.0f} %" for p in row)))
        print(markdown(lines))
    if arguments.picture is not None:
        from analysis.power_picture import draw

        draw(powers, gains, _CHARACTERS, _SEEDS, arguments.picture)


def noise_table(found: Mapping[str, "Budget"]) -> str:
    """A line per branch, in percent of relative CERR: standard deviations, and whose they are."""
    head = ("branch", "characters", "seeds", "relative CERR", "sd of one seed", "its 95 % range")
    lines: list[tuple[str, ...]] = [(*head, "error: utterances", "seeds", "both", "all")]
    for branch, each in found.items():
        low, high = each.seed_range
        parts = each.noise.errors(each.characters, each.seeds)
        lines.append(
            (
                branch,
                f"{each.characters:,}",
                str(each.seeds),
                f"{100 * each.gain:+.1f}",
                f"{100 * each.noise.seed:.1f}",
                f"{100 * low:.1f}-{100 * high:.1f}",
                *(f"{100 * part:.1f}" for part in parts),
            )
        )
    return markdown(lines)


if __name__ == "__main__":
    run_program(main)
