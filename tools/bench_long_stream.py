#!/usr/bin/env python3
"""Memory and time per chunk over hours of one stream, with endpointing.

    source tools/env.sh; tools/bench_long_stream.py --exp-dir EXP --data-dir DATA [--minutes 60]
        [--two-pass] [--split eval1] [--png FILE] [--json FILE] [OPTIONS OF dualasr-transcribe]

The recordings of a split are played one after the other, again and again, chunk by chunk as they
are read, as fast as the machine can. A row per five minutes of audio: compute time of a chunk
without the second pass (p50, p99, largest), time of the second pass, resident memory. RTF counts
everything. CPU times hardly feel other programs on the machine, wall times (all the others) do.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dualasr_lib.core.files import output_file
from dualasr_lib.core.program import run_program
from dualasr_lib.core.table import markdown
from dualasr_lib.data.folder import recording_files
from dualasr_lib.programs.transcribe import add_engine_arguments, engine_config, load_engine

if TYPE_CHECKING:
    from torch import Tensor

    from dualasr_lib.decoding.contract import Rewritten, SecondPass, Sentence
    from dualasr_lib.decoding.events import Event

_MINUTES = 5
_HEADER = (
    *("minutes", "sentences", "chunk p50 ms", "p99 ms", "largest ms", "cpu p50 ms", "cpu p99 ms"),
    *("second pass p50 ms", "p99 ms", "RTF", "RSS MB"),
)


class Row(NamedTuple):
    """Some minutes of audio."""

    minutes: float
    """Audio heard when the row ends."""
    sentences: int
    chunk_ms: list[float]
    cpu_ms: list[float]
    second_pass_ms: list[float]
    rtf: float
    rss_mb: float


class TimedPass:
    """A second pass, and the wall time of each call."""

    def __init__(self, inner: SecondPass) -> None:
        self._inner = inner
        self.seconds: list[float] = []
        self.cpu_seconds = 0.0
        """Of all calls together."""

    def __call__(self, sentence: Sentence) -> Rewritten:
        begun, cpu = time.perf_counter(), time.process_time()
        rewritten = self._inner(sentence)
        self.seconds.append(time.perf_counter() - begun)
        self.cpu_seconds += time.process_time() - cpu
        return rewritten


class Player:
    """Blocks of `hop` samples; takes the time until the next one is wanted."""

    def __init__(self, files: Sequence[Path], hop: int, rate: int, timed: TimedPass | None) -> None:
        self._files, self._hop, self._rate, self._timed = files, hop, rate, timed
        self.seconds: list[float] = []
        """Compute time of each block, without the second pass."""
        self.cpu_seconds: list[float] = []
        """CPU time of the same."""

    def blocks(self, count: int) -> Iterator[Tensor]:
        """`count` blocks."""
        for block in itertools.islice(self._endless(), count):
            before, begun, cpu = self._second_pass(), time.perf_counter(), time.process_time()
            yield block
            wall, used, after = time.perf_counter(), time.process_time(), self._second_pass()
            self.seconds.append(wall - begun - (after[0] - before[0]))
            self.cpu_seconds.append(used - cpu - (after[1] - before[1]))

    def _second_pass(self) -> tuple[float, float]:
        """Wall and CPU seconds of all its calls so far."""
        return (sum(self._timed.seconds), self._timed.cpu_seconds) if self._timed else (0.0, 0.0)

    def _endless(self) -> Iterator[Tensor]:
        import torch

        from dualasr_lib.data.audio import open_audio

        rest = torch.zeros(0)
        for path in itertools.cycle(self._files):
            for piece in open_audio(path, self._rate).blocks(self._hop):
                rest = torch.cat([rest, torch.from_numpy(piece)])
                if len(rest) >= self._hop:
                    yield rest[: self._hop].clone()
                    rest = rest[self._hop :].clone()


def measure(
    events: Iterator[Event], player: Player, timed: TimedPass | None, block_seconds: float
) -> Iterator[Row]:
    """A row for every five minutes of audio; what is left gives the last."""
    from bench.memory import resident_mb

    from dualasr_lib.decoding.events import Final

    per_row = round(60 * _MINUTES / block_seconds)
    done = passes = sentences = 0
    begun = time.perf_counter()
    for event in itertools.chain(events, (None,)):
        sentences += isinstance(event, Final) and bool(event.text)
        if event is not None and len(player.seconds) - done < per_row:
            continue
        taken, done = player.seconds[done:], len(player.seconds)
        if taken:
            second = [] if timed is None else timed.seconds[passes:]
            passes += len(second)
            now = time.perf_counter()
            rtf = (now - begun) / (len(taken) * block_seconds)
            minutes = done * block_seconds / 60
            cpu = player.cpu_seconds[done - len(taken) : done]
            yield Row(minutes, sentences, _ms(taken), _ms(cpu), _ms(second), rtf, resident_mb())
            begun, sentences = now, 0


def _ms(seconds: Sequence[float]) -> list[float]:
    return [1000 * value for value in seconds]


def cells(row: Row) -> tuple[str, ...]:
    """A line under the header."""
    from bench.streaming import percentile

    wall = (percentile(row.chunk_ms, 0.5), percentile(row.chunk_ms, 0.99), max(row.chunk_ms))
    cpu = (percentile(row.cpu_ms, 0.5), percentile(row.cpu_ms, 0.99))
    second: tuple[str, ...] = ("-", "-")
    if row.second_pass_ms:
        second = tuple(f"{percentile(row.second_pass_ms, share):.0f}" for share in (0.5, 0.99))
    return (
        *(f"{row.minutes:.1f}", str(row.sentences), *(f"{value:.1f}" for value in (*wall, *cpu))),
        *(*second, f"{row.rtf:.3f}", f"{row.rss_mb:.0f}"),
    )


def draw(rows: Sequence[Row], path: Path, of: str = "one stream") -> None:
    """Time per chunk and memory over the audio heard; `of` says which stream."""
    from analysis.pictures import write_picture
    from bench.streaming import percentile
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    minutes = [row.minutes for row in rows]
    for share, style in ((0.5, "o-"), (0.99, "s--")):
        values = [percentile(row.cpu_ms, share) for row in rows]
        upper.plot(minutes, values, style, label=f"CPU time of a chunk, p{100 * share:.0f}")
    if any(row.second_pass_ms for row in rows):
        values = [percentile(row.second_pass_ms or [0.0], 0.5) for row in rows]
        upper.plot(minutes, values, "^:", label="second pass, wall, p50")
    lower.plot(minutes, [row.rss_mb for row in rows], "o-", color="tab:red")
    highest = max(line.get_ydata().max(initial=0.0) for line in upper.get_lines())
    upper.set(ylabel="time (ms)", ylim=(0, 1.5 * highest))  # room for the legend
    lower.set(
        ylabel="resident memory (MB)",
        xlabel="audio heard (minutes)",
        ylim=(0, 1.2 * max(row.rss_mb for row in rows)),
    )
    upper.legend(loc="upper right", ncols=2)
    figure.suptitle(f"Computing time and memory of {of}, by {_MINUTES:g} minutes", fontsize=11)
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    write_picture(figure, path, dpi=150)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_engine_arguments(parser)
    add = parser.add_argument
    add("--minutes", type=float, default=60.0, help="of audio; default: 60")
    add("--split", default="eval1", help="whose recordings are played; default: eval1")
    add("--png", type=output_file, metavar="FILE", help="draw time and memory there")
    add("--json", type=output_file, metavar="FILE", help="write all numbers there")
    arguments = parser.parse_args()
    if not arguments.minutes > 0:
        raise ValueError(f"--minutes must be greater than 0, but is {arguments.minutes}")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    if arguments.data_dir is None:
        raise ValueError("--data-dir must be given: its recordings are played")
    from bench.report import announce, write_json  # what is heavy, after the options

    from dualasr_lib.decoding.live import listen

    if arguments.png:
        import matplotlib.figure  # noqa: F401  (fails before the work, not after it)
    files = recording_files(arguments.data_dir, arguments.split)
    rules = load_engine(engine_config(arguments)).rules
    model = rules.model
    described = announce(arguments.threads, arguments.device)
    block_seconds = model.chunk_samples / model.sample_rate
    timed = None if rules.second_pass is None else TimedPass(rules.second_pass)
    player = Player(files, model.chunk_samples, model.sample_rate, timed)
    blocks = player.blocks(max(1, round(60 * arguments.minutes / block_seconds)))
    events = listen(blocks, replace(rules, second_pass=timed))
    rows = []
    for row in measure(events, player, timed, block_seconds):
        rows.append(row)
        print("  ".join(cells(row)), file=sys.stderr, flush=True)
    print(f"\n{markdown([_HEADER, *map(cells, rows)])}")
    if arguments.png:
        heard = f"one stream of {arguments.split}, model {arguments.exp_dir.name}"
        draw(rows, arguments.png, heard)
    if arguments.json:
        write_json(arguments.json, {"settings": described, "rows": [row._asdict() for row in rows]})


if __name__ == "__main__":
    run_program(main)
