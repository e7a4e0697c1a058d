#!/usr/bin/env python3
"""Make the open corpus: synthetic Japanese speech in CSJ's folders and formats.

    python tools/make_open_corpus.py --out DIR [--neural]
        --preset demo|noisy|noisy-long|shipped|quick|small|large

The same seed gives the same bytes whatever --jobs; a run that was stopped goes on when started
again. See tools/open_corpus/README.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from open_corpus.names import PRESET_NAMES

_SECONDS_BETWEEN_LINES = 5.0


class _Progress:
    """A line on a terminal, else a log line every few seconds, with the time that is left."""

    def __init__(self) -> None:
        self._stage, self._begun, self._shown = "", 0.0, 0.0

    def __call__(self, stage: str, done: float, total: float) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._begun, self._shown = stage, now, 0.0
        if done < total and now - self._shown < _SECONDS_BETWEEN_LINES:
            return
        self._shown = now
        elapsed = now - self._begun
        left = f", {elapsed * (total - done) / done:.0f} s left" if done else ""
        amount = f"{done / 60:.1f} of {total / 60:.1f} min of audio ({done / total:.0%})"
        line = f"{stage}: {amount}, {elapsed:.0f} s{left}"
        end = "\r" if sys.stderr.isatty() and done < total else "\n"
        print(line.ljust(79), end=end, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make the open corpus in CSJ's layout.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--preset", choices=PRESET_NAMES, default="demo")
    parser.add_argument("--neural", action="store_true", help="neural voices, too; a download")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    arguments = parser.parse_args()
    if arguments.jobs < 1:
        parser.error(f"--jobs must be at least 1, but is {arguments.jobs}")
    return arguments


def main() -> int:
    """Run the program; the exit code."""
    arguments = _arguments()
    begun = time.monotonic()
    try:
        from open_corpus.build import build_corpus  # what is heavy, after the options
        from open_corpus.presets import preset
        from open_corpus.sources import cache_dir

        plan = preset(arguments.preset, arguments.seed, arguments.neural)
        summary = build_corpus(plan, arguments.out, arguments.jobs, cache_dir(), _Progress())
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        print(f"make_open_corpus: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("make_open_corpus: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    if summary is None:
        print(f"{arguments.out} is complete already")
        return 0
    for name, value in summary._asdict().items():
        print(f"{name:20} {value}")
    print(f"{'wall seconds':20} {time.monotonic() - begun:.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
