#!/usr/bin/env python3
"""Speed of decoding, beside its targets: lattices, streams, rescoring, second pass, transducers.

    source tools/env.sh; tools/bench_decoding.py [--vocab 500 3000] [--rounds 7] [--minutes 60]
        [--config egs/csj/conf/small.toml] [--json FILE]
        [--only lattice online hour second-pass transducer transducer-step transducer-hour]

CPU time of one thread, medians; compared things take turns in one run. Posteriors are made up
(tools/bench/posteriors.py) and described first. flashlight-text is measured beside ours if it
is installed: pip install flashlight-text==0.0.7
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dualasr_lib.core.files import output_file
from dualasr_lib.core.program import run_program
from dualasr_lib.core.table import markdown

if TYPE_CHECKING:
    from bench.report import Row

_PARTS = (
    *("lattice", "online", "hour", "second-pass"),
    *("transducer", "transducer-step", "transducer-hour"),
)
_CONF = Path(__file__).resolve().parents[1] / "egs" / "csj" / "conf"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--vocab", type=int, nargs="+", default=[500, 3000], help="vocabulary sizes V")
    add("--rounds", type=int, default=7)
    add("--minutes", type=int, default=60, help="of the long stream")
    add("--config", type=Path, default=_CONF / "small.toml", help="model of second pass and steps")
    add("--set", nargs="*", default=[], metavar="KEY=VALUE", help="on top of it")
    add("--only", nargs="+", choices=_PARTS, default=list(_PARTS), help="parts to measure")
    add("--json", type=output_file, metavar="FILE", help="write all numbers there too")
    return parser.parse_args()


def check(arguments: argparse.Namespace) -> None:
    """ValueError unless all counts are usable."""
    for name, least in (("rounds", 1), ("minutes", 2)):
        if getattr(arguments, name) < least:
            given = getattr(arguments, name)
            raise ValueError(f"--{name} must be at least {least}, but is {given}")
    if min(arguments.vocab) < 30:
        raise ValueError(f"--vocab must be at least 30, but is {min(arguments.vocab)}")


def measured(arguments: argparse.Namespace) -> Iterator["Row"]:
    """All rows that were asked for, as they are ready."""
    from bench.decoding import hour_rows, lattice_rows, online_rows, second_pass_rows
    from bench.endpoint import endpoint_rows
    from bench.transducer_search import transducer_rows
    from bench.transducer_stream import transducer_hour_rows, transducer_step_rows
    from bench.workloads import Setting

    for vocab_size in arguments.vocab:
        if "lattice" in arguments.only:
            yield from lattice_rows(vocab_size, arguments.rounds)
        if "online" in arguments.only:
            yield from online_rows(vocab_size, arguments.rounds)
        if "transducer" in arguments.only:
            yield from transducer_rows(vocab_size, arguments.rounds)
    if "hour" in arguments.only:
        yield from hour_rows(min(arguments.vocab), arguments.minutes)
    if "transducer-hour" in arguments.only:
        yield from transducer_hour_rows(min(arguments.vocab), arguments.minutes)
    setting = Setting(
        config=arguments.config,
        overrides=tuple(arguments.set),
        utterances=1,
        chunk=16,
        vocab_size=max(arguments.vocab),
    )
    if "transducer-step" in arguments.only:
        yield from transducer_step_rows(setting, arguments.rounds)
    if "second-pass" in arguments.only:
        yield from second_pass_rows(setting, arguments.rounds)
        yield from endpoint_rows(setting, arguments.rounds)


def main() -> None:
    arguments = parse_arguments()
    check(arguments)
    import torch  # what is heavy, after the options
    from bench.posteriors import describe, log_probs
    from bench.report import HEADER, announce, cells, write_json

    torch.set_num_threads(1)
    described = announce(1, "cpu")
    for vocab_size in arguments.vocab:
        print(f"posteriors, V={vocab_size}: {describe(log_probs(250, vocab_size, 0), 8.0)}")
    rows = []
    for row in measured(arguments):
        print("  ".join(cells(row)), flush=True)
        rows.append(row)
    print(f"\n{markdown([HEADER, *map(cells, rows)])}")
    if arguments.json:
        lines = [{**row._asdict(), "passed": row.passed} for row in rows]
        write_json(arguments.json, {"settings": described, "rows": lines})


if __name__ == "__main__":
    run_program(main)
