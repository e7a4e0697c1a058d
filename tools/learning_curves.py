#!/usr/bin/env python3
"""Tables of how fast runs learned: CER on `valid` after so many updates, over seeds.

    tools/run_matrix.py --matrix egs/csj/conf/matrix.toml --group learning --steps train --out OUT
    tools/learning_curves.py --out OUT [--steps 300 600] [--json FILE]    from the logs in OUT
    tools/learning_curves.py --from-json FILE [--steps 300 600]    the same from what --json wrote

With --out and --from-json both: the runs of FILE, and those in OUT in their place or beside them.

The CER is that of greedy search with the weights of that step, as train.py logs it when
`training.validate_every` is due.
"""

import argparse
import itertools
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev

from analysis.matrix.folder import read_record

from dualasr_lib.core.files import output_file, write_atomically
from dualasr_lib.core.program import run_program, what_is_wrong
from dualasr_lib.core.table import markdown

__all__ = ["Curve", "collect", "read_curves", "table", "united", "write_curves"]

_PREFIX = "valid/cer_"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """How one run learned."""

    cell: str
    seed: int
    branch: str
    cer: dict[int, float]
    """Updates -> CER on valid, per cent."""
    train_seconds: float
    """Of the whole training, by the clock."""
    commit: str
    """Of the programs."""
    set: tuple[str, ...]
    """What was changed in the configuration."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of run_matrix.py")
    parser.add_argument("--from-json", type=Path, metavar="FILE", help="what --json wrote")
    parser.add_argument("--steps", type=int, nargs="+", default=[300, 600], help="default: 300 600")
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="also write what tables are of"
    )
    arguments = parser.parse_args()
    if arguments.out is None and arguments.from_json is None:
        parser.error("one of --out and --from-json must be given, or both")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    curves = [] if arguments.from_json is None else read_curves(arguments.from_json)
    if arguments.out is not None:
        curves = united(curves, collect(arguments.out))
    if arguments.json is not None:
        write_curves(arguments.json, curves)
    for branch in dict.fromkeys(curve.branch for curve in curves):
        of_branch = [curve for curve in curves if curve.branch == branch]
        print(f"\n{branch} branch, CER % on valid\n")
        print(markdown(table(of_branch, arguments.steps)))
    print(f"\ncommits: {', '.join(sorted({curve.commit for curve in curves}))}")


def collect(out: Path) -> list[Curve]:
    """The curves of all finished trainings in `out`, cells and seeds in order.

    Raises:
        ValueError: there is none, or a log is damaged.
    """
    curves = []
    for path in sorted(out.glob("*/seed-*/run.json")):
        record = read_record(path)
        if record is None or "train" not in record.steps:
            continue
        done = record.steps["train"]
        for branch, cer in _scores(path.with_name("log.jsonl")).items():
            curve = Curve(
                cell=record.cell,
                seed=record.seed,
                branch=branch,
                cer=cer,
                train_seconds=record.spent["train"],
                commit=done["commit"],
                set=_changes(done["command"]),
            )
            curves.append(curve)
    if not curves:
        raise ValueError(f"there is no finished training in {out}: run_matrix.py makes them")
    return curves


def united(older: Sequence[Curve], newer: Sequence[Curve]) -> list[Curve]:
    """All curves; of one cell, seed and branch the newer. Cells and seeds in order."""
    found = {(curve.cell, curve.seed, curve.branch): curve for curve in [*older, *newer]}
    return [found[key] for key in sorted(found, key=lambda key: key[:2])]


def _changes(command: str) -> tuple[str, ...]:
    """The `key=value` of a command of train.py."""
    words = shlex.split(command)
    behind = words[words.index("--set") + 1 :]
    return tuple(itertools.takewhile(lambda word: not word.startswith("--"), behind))


def _scores(path: Path) -> dict[str, dict[int, float]]:
    """Branch -> updates -> CER, from the log of a run."""
    found: dict[str, dict[int, float]] = {}
    try:
        points = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for point in points:
            for name, value in point.items():
                if name.startswith(_PREFIX):
                    branch = name.removeprefix(_PREFIX)
                    found.setdefault(branch, {})[int(point["step"])] = float(value)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} must be the log of a training: {what_is_wrong(error)}") from None
    return found


def write_curves(path: Path, curves: Sequence[Curve]) -> None:
    """One JSON file, a line per curve."""
    lines = [json.dumps(asdict(curve), ensure_ascii=False) for curve in curves]
    write_atomically(path, ("[\n" + ",\n".join(lines) + "\n]\n").encode())


def read_curves(path: Path) -> list[Curve]:
    """What `write_curves` wrote.

    Raises:
        ValueError: the file is missing or damaged.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(plain, list):
            raise TypeError("it holds no list")
        for item in plain:
            item["set"] = tuple(item["set"])
            item["cer"] = {int(step): float(value) for step, value in item["cer"].items()}
        return [Curve(**item) for item in plain]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} must be a file of learning_curves.py: {what_is_wrong(error)}"
        ) from None


def table(curves: Sequence[Curve], steps: Sequence[int]) -> list[tuple[str, ...]]:
    """A line per cell, the head first: mean and spread over seeds after each number of updates."""
    lines = [("cell", "seeds", *(f"{step} updates" for step in steps), "each seed at the last")]
    for cell in dict.fromkeys(curve.cell for curve in curves):
        of_cell = [curve for curve in curves if curve.cell == cell]
        columns = [[c.cer[step] for c in of_cell if step in c.cer] for step in steps]
        seeds = " ".join(str(curve.seed) for curve in of_cell)
        each = " ".join(f"{value:.1f}" for value in columns[-1])
        lines.append((cell, seeds, *map(_spread, columns), each))
    return lines


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{spread}"


if __name__ == "__main__":
    run_program(main)
