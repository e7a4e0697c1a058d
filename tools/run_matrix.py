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
from the summaries of all runs that are decoded. The exit code is 1 if a run failed.

Without --data-dir the corpus of the matrix is made, in OUT/corpus and OUT/data. A machine without
k2 can do --steps train; another one, with the same OUT, the rest.
"""

import argparse
import logging
import os
import subprocess
import sys
from pathlib import Path

from matrix.folder import data_fingerprint
from matrix.plan import MatrixConfig, Run, plan, runs
from matrix.report import report
from matrix.results import MatrixResults, collect, read_results, write_results
from matrix.runner import Runner
from matrix.steps import STEPS, Workplace

from dualasr_lib.files import write_atomically
from dualasr_lib.program import run_program
from dualasr_lib.training.distributed import World
from dualasr_lib.training.lock import sole_run

_ROOT = Path(__file__).resolve().parents[1]
_LOG = logging.getLogger(__name__)


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
    add("--out", type=Path, help="default: .matrix in this clone; with --from-json: no files")
    add("--data-dir", type=Path, help="what prepare.sh wrote; default: OUT/data, made if need be")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--jobs", type=int, default=1, help="runs at a time, which share the cores; default: 1")
    add("--steps", nargs="+", choices=STEPS, default=STEPS, help="default: all")
    add("--report-only", action="store_true", help="run nothing")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.jobs < 1:
        raise ValueError(f"--jobs must be at least 1, but is {arguments.jobs}")
    if arguments.from_json is not None:
        publish(read_results(arguments.from_json), arguments.out)
        return
    matrix, cells = plan(arguments.matrix, arguments.base, arguments.set)
    wanted = runs(cells, arguments.seeds, arguments.group, arguments.cell)
    out: Path = (arguments.out or _ROOT / ".matrix").resolve()
    failures: list[str] = []
    if not arguments.report_only:
        with sole_run(out, World()):
            failures = execute(matrix, wanted, out, arguments)
    decoded = failures or arguments.report_only or "decode" in arguments.steps
    if decoded:
        results = collect(matrix, out, runs(cells, arguments.seeds, [], []))
        write_results(out / "results.json", results)
        publish(results, out)
    if failures:
        raise ValueError(f"{len(failures)} runs failed:\n" + "\n".join(failures))


def execute(
    matrix: MatrixConfig, wanted: list[Run], out: Path, arguments: argparse.Namespace
) -> list[str]:
    """Makes the data if need be, and runs what is not done; what failed."""
    data_dir = out / "data" if arguments.data_dir is None else arguments.data_dir.resolve()
    if arguments.data_dir is None:
        make_data(matrix, out, arguments.jobs)
    if arguments.jobs > 1:
        share = max(1, (os.cpu_count() or 1) // arguments.jobs)
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(share)
    data = data_fingerprint(data_dir, matrix.splits)
    place = Workplace(out, data_dir, arguments.device)
    return Runner(matrix, place, arguments.steps, data, wanted).execute(arguments.jobs)


def make_data(matrix: MatrixConfig, out: Path, jobs: int) -> None:
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


def publish(results: MatrixResults, out: Path | None) -> None:
    """Prints the tables; with a folder, also files."""
    text = report(results)
    print(f"\n{text}")
    if out is None:
        return
    write_atomically(out / "results.md", text.encode())
    try:
        from matrix.drawing import draw
    except ImportError:
        _LOG.info("no results.png: matplotlib is not installed")
    else:
        draw(results, out / "results.png")


if __name__ == "__main__":
    run_program(main)
