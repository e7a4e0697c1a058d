#!/usr/bin/env python3
"""Trains and evaluates a matrix of configurations, and makes the tables that compare them.

    tools/run_matrix.py --matrix egs/csj/conf/matrix.toml --seeds 0 1 2 --device cpu
        [--group main] [--cell sp-kd] [--out DIR] [--data-dir DATA] [--jobs 2] [--steps train ...]
    tools/run_matrix.py --matrix M --seeds 0 1 2 --report-only    tables of what is there
    tools/run_matrix.py --from-json FILE                          tables of a results file

Every run has a folder, OUT/<cell>/seed-<n>: that of an ordinary train.py, decoded by ordinary
decode.py and streaming_decode.py; run.json there says which steps are done, by which commands. The
same command goes on where it was stopped, and does nothing twice. A folder of another configuration
is refused. At the end OUT/results.json (errors by utterance), results.md and results.png are made
from the summaries of all runs in OUT that are decoded, of all seeds. The exit code is 1 if a run
failed.

Without --data-dir the corpus of the matrix is made, in OUT/corpus and OUT/data, unless OUT/data is
there. A machine without k2 can do --steps train; another one, to which OUT is copied, the rest.
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from analysis.matrix.names import STEPS

from dualasr_lib.core.files import output_folder, write_atomically
from dualasr_lib.core.program import run_program
from dualasr_lib.data.folder import DATA_FILE

if TYPE_CHECKING:
    from analysis.matrix.plan import MatrixConfig, Run
    from analysis.matrix.results import MatrixResults

_ROOT = Path(__file__).resolve().parents[1]
_LOG = logging.getLogger(__name__)
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--matrix", type=Path, help="TOML file, e.g. egs/csj/conf/matrix.toml")
    source.add_argument(
        "--from-json", type=Path, metavar="FILE", help="only tables, of results.json"
    )
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="training seeds; default: 0 1 2")
    add("--group", nargs="+", default=[], help="cells of these groups; default: all cells")
    add("--cell", nargs="+", default=[], help="cells by name, beside those of --group")
    add("--base", type=Path, metavar="FILE", help="sizes of all models, in place of the matrix's")
    add("--set", nargs="*", action="extend", default=[], metavar="KEY=VALUE",
        help="changes to all cells, e.g. training.max_steps=2000")  # fmt: skip
    add(
        "--out",
        type=output_folder,
        help="default: .matrix in this clone; with --from-json: no files",
    )
    add("--data-dir", type=Path, help="what prepare.sh wrote; default: OUT/data, made if need be")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--jobs", type=int, default=1, help="runs at a time, which share the cores; default: 1")
    add("--steps", nargs="+", choices=STEPS, default=STEPS, help="default: all")
    add("--report-only", action="store_true", help="run nothing")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    check(arguments)
    # What is heavy, after the options are read:
    from analysis.matrix.plan import plan, runs
    from analysis.matrix.results import collect, read_results, write_results

    from dualasr_lib.training.distributed import World
    from dualasr_lib.training.lock import sole_run

    if arguments.from_json is not None:
        publish(read_results(arguments.from_json), arguments.out)
        return
    matrix, cells = plan(arguments.matrix, arguments.base, arguments.set)
    out: Path = (arguments.out or _ROOT / ".matrix").resolve()
    failures: list[str] = []
    if not arguments.report_only:
        wanted = runs(cells, arguments.seeds, arguments.group, arguments.cell)
        with interrupts(), sole_run(out, World()):
            failures = execute(matrix, wanted, out, arguments)
    try:
        if arguments.report_only or set(arguments.steps) != {"train"}:
            results = collect(matrix, cells, out)
            write_results(out / "results.json", results)
            publish(results, out)
    except ValueError as error:
        failures.append(f"no tables: {error}")
    if failures:
        raise ValueError("not everything went well:\n" + "\n".join(failures))


def check(arguments: argparse.Namespace) -> None:
    """ValueError for options that make no sense, or would be ignored."""
    if arguments.jobs < 1:
        raise ValueError(f"--jobs must be at least 1, but is {arguments.jobs}")
    chosen = arguments.group or arguments.cell or tuple(arguments.steps) != STEPS
    if arguments.report_only and chosen:
        raise ValueError("--report-only takes no --group, --cell or --steps: it reports all runs")
    changed = chosen or arguments.base or arguments.set or arguments.report_only
    if arguments.from_json is not None and (changed or arguments.data_dir):
        raise ValueError("--from-json takes --out only: it reports all that the file has")


@contextmanager
def interrupts() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP are KeyboardInterrupts, as SIGINT is."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def execute(
    matrix: "MatrixConfig", wanted: "list[Run]", out: Path, arguments: argparse.Namespace
) -> list[str]:
    """Makes the data if need be, and runs what is not done; what failed."""
    import torch
    from analysis.matrix.folder import data_fingerprint
    from analysis.matrix.runner import Runner
    from analysis.matrix.steps import Workplace

    from dualasr_lib.core.device import local_device

    device = local_device(arguments.device)
    data_dir = out / "data" if arguments.data_dir is None else arguments.data_dir.resolve()
    if arguments.data_dir is None and not (data_dir / DATA_FILE).is_file():
        make_data(matrix, out, arguments.jobs)
    if arguments.jobs > 1:
        share = max(1, (os.cpu_count() or 1) // arguments.jobs)
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(share)
    data = data_fingerprint(data_dir, matrix.splits)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    place = Workplace(out, data_dir, arguments.device, name)
    return Runner(matrix, place, arguments.steps, data, wanted).execute(arguments.jobs)


def make_data(matrix: "MatrixConfig", out: Path, jobs: int) -> None:
    """The matrix's corpus and its features; both programs go on where they were stopped."""
    corpus = matrix.corpus
    made, data, many = str(out / "corpus"), str(out / "data"), ("--jobs", str(jobs))
    seed = ("--preset", corpus.preset, "--seed", str(corpus.seed))
    for command in (
        (sys.executable, str(_ROOT / "tools/make_open_corpus.py"), "--out", made, *seed, *many),
        ("bash", str(_ROOT / "egs/csj/prepare.sh"), "--csj-dir", made, "--data-dir", data,
         "--open", "--max-length", str(corpus.max_length), *many),
    ):  # fmt: skip
        if subprocess.run(command).returncode != 0:
            raise ValueError(f"the data could not be made: {' '.join(command)}")


def publish(results: "MatrixResults", out: Path | None) -> None:
    """Prints the tables; with a folder, also files."""
    from analysis.matrix.report import report
    from analysis.matrix.statistics import Table

    table = Table(results)
    text = report(table)
    print(f"\n{text}")
    if out is None:
        return
    write_atomically(out / "results.md", text.encode())
    picture = out / "results.png"
    picture.unlink(missing_ok=True)  # that of earlier tables
    try:
        from analysis.matrix.drawing import draw

        draw(table, picture)
    except (ImportError, ValueError) as error:
        _LOG.info("no results.png: %s", error)


if __name__ == "__main__":
    run_program(main)
