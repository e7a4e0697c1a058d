#!/usr/bin/env python3
"""Load and soak of `dualasr-serve`: real-time streams on one core, and what became of them.

    source tools/env.sh; tools/bench_serving.py --bundle FILE [--streams 25] [--seconds 120]
        [--core 0] [--limit KEY=VALUE] AUDIO ...

Starts a server, held to one core, and this many clients on the others, each of which plays the
recordings at natural speed from a place of its own. Times are from the server's own histograms: a
percentile is the upper edge of its bucket. A stream is behind when unheard audio is longer than a
chunk. RSS is the sum over the server and its decoder, after the first quarter and at the end. On a
machine that others use the decoder may be ready and get no core: "no core" is the time for which
its stepping thread was, and the longest such time within about a second (Linux's schedstat).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.request import urlopen

from dualasr_lib.core.program import run_program
from dualasr_lib.core.table import markdown

if TYPE_CHECKING:
    from dualasr_lib.serving.client import Spoken

_RATE = 16000
_PAUSE = 0.13
"""Seconds between the starts of two streams: they do not come at once."""
_START_SECONDS = 120
_HEADER = (
    *(
        "streams",
        "seconds",
        "ended well",
        "chunk p50 ms",
        "p99 ms",
        "streams of a step",
        "queue p99 s",
    ),
    *("second pass p99 ms", "pass 1 of finals", "RTF", "RSS MB", "at the end"),
    *("no core s", "longest s"),
)


class Served(NamedTuple):
    """A server that is ready."""

    port: int
    processes: tuple[int, int]
    """Server and decoder."""

    def metrics(self) -> str:
        """The page of counters."""
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=60) as answer:
            text: str = answer.read().decode()
        return text

    def rss_mb(self) -> float:
        """Of both processes."""
        statuses = [Path(f"/proc/{number}/status").read_text() for number in self.processes]
        sizes = [re.findall(r"VmRSS:\s+(\d+)", text) for text in statuses]
        if not all(sizes):
            raise ValueError("the server has lost its decoder")
        return sum(int(size[0]) for size in sizes) / 1024

    def waited_seconds(self) -> float:
        """For which the decoder's main thread was ready and had no core, since it began."""
        return int(Path(f"/proc/{self.processes[1]}/schedstat").read_text().split()[1]) / 1e9


def main() -> None:
    """The program."""
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    reader.add_argument("--bundle", type=Path, required=True)
    reader.add_argument("--streams", type=int, default=25)
    reader.add_argument("--seconds", type=float, default=120)
    reader.add_argument("--core", type=int, default=0, help="of the server; default: 0; -1: any")
    reader.add_argument("--limit", default=[], action="append", metavar="KEY=VALUE",
                        help="as dualasr-serve's")  # fmt: skip
    reader.add_argument("audio", type=Path, nargs="+", metavar="AUDIO")
    arguments = reader.parse_args()
    if arguments.streams < 1 or arguments.seconds < 10:
        raise ValueError("--streams must be at least 1, and --seconds at least 10")
    from dualasr_lib.serving.client import recorded  # what is heavy, after the options

    sound = recorded(arguments.audio, _RATE)
    limits = [f"streams={arguments.streams}", f"streams_per_address={arguments.streams}"]
    limits += ["session_seconds=7200", *arguments.limit]
    with _server(arguments.bundle, limits, arguments.core) as served:
        row = asyncio.run(_measured(served, sound, arguments.streams, arguments.seconds))
    print(markdown([_HEADER, row]))


@contextmanager
def _server(bundle: Path, limits: Sequence[str], core: int) -> Iterator[Served]:
    command = [sys.executable, "-m", "dualasr_lib.programs.serve", "--bundle", str(bundle)]
    command += ["--port", "0", *(part for limit in limits for part in ("--limit", limit))]
    cores = os.sched_getaffinity(0)
    if core >= 0:
        os.sched_setaffinity(0, {core})  # which the server inherits
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    if core >= 0:
        os.sched_setaffinity(0, cores - {core} or cores)
    assert process.stderr is not None
    told, port = "", None
    try:
        for line in process.stderr:
            told += line
            port = re.search(r"listening at http://.*:(\d+)/", line)
            if port:
                break
        decoder = re.search(r"decoding process (\d+)", told)
        if port is None or decoder is None:
            raise ValueError(f"the server did not start: {told.strip()}")
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield Served(int(port[1]), (process.pid, int(decoder[1])))
    finally:
        process.terminate()
        process.wait(_START_SECONDS)


async def _measured(served: Served, sound: bytes, streams: int, seconds: float) -> list[str]:
    from dualasr_lib.serving.client import speak

    async def one(index: int) -> Spoken:
        await asyncio.sleep(_PAUSE * index)
        start = 2 * (index * len(sound) // (2 * streams))
        turned = sound[start:] + sound[:start]
        url = f"ws://127.0.0.1:{served.port}/live"
        return await speak(url, turned, _RATE, seconds=seconds)

    begun = time.monotonic()
    tasks = [asyncio.create_task(one(index)) for index in range(streams)]
    spoken, rss, waited = await _watched(served, asyncio.gather(*tasks, return_exceptions=True))
    page = await asyncio.to_thread(served.metrics)
    closes = [repr(one) if isinstance(one, BaseException) else one.close for one in spoken]
    others = {close for close in closes if close != 1000}
    if others:
        print(f"streams that did not end well: {others}", file=sys.stderr)
    if not _value(page, "dualasr_batch_streams_count"):
        raise ValueError(f"no stream was heard: {others}")
    well = closes.count(1000)
    chunk, second = "dualasr_chunk_seconds", "dualasr_second_pass_seconds"
    first = _value(page, r'dualasr_finals_total\{number="1"\}')
    finals = first + _value(page, r'dualasr_finals_total\{number="2"\}')
    batch = _value(page, "dualasr_batch_streams_sum") / _value(page, "dualasr_batch_streams_count")
    return [
        str(streams), f"{time.monotonic() - begun:.0f}", f"{well} of {streams}",
        f"<= {1000 * _percentile(page, chunk, 0.5):.0f}",
        f"<= {1000 * _percentile(page, chunk, 0.99):.0f}", f"{batch:.1f}",
        f"<= {_percentile(page, 'dualasr_queue_seconds', 0.99):.2f}",
        f"<= {1000 * _percentile(page, second, 0.99):.0f}", f"{first:.0f} of {finals:.0f}",
        f"{_value(page, 'dualasr_real_time_factor'):.3f}", f"{rss[len(rss) // 4]:.0f}",
        f"{rss[-1]:.0f}", f"{sum(waited):.1f}", f"{max(waited):.1f}",
    ]  # fmt: skip


async def _watched(
    served: Served, speaking: asyncio.Future[list[Any]]
) -> tuple[list[Any], list[float], list[float]]:
    """What became of the streams; RSS and seconds without a core, once a second until then."""
    rss, waited = [served.rss_mb()], [served.waited_seconds()]
    while not speaking.done():
        await asyncio.wait([speaking], timeout=1.0)
        rss.append(served.rss_mb())
        waited.append(served.waited_seconds())
        if len(rss) % 60 == 0:
            told = f"{len(rss)} s: RSS {rss[-1]:.0f} MB, {waited[-1] - waited[-60]:.1f} s without"
            print(f"{told} a core in the last minute", file=sys.stderr, flush=True)
    steps = [after - before for before, after in pairwise(waited)]
    return speaking.result(), rss[:-1] if len(rss) > 2 else rss, steps


def _value(page: str, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", page, re.MULTILINE)
    return float(found[1]) if found else 0.0


def _percentile(page: str, name: str, share: float) -> float:
    """Upper edge of the bucket in which it is."""
    buckets = re.findall(rf'^{name}_bucket{{le="(\S+)"}} (\S+)$', page, re.MULTILINE)
    count = _value(page, f"{name}_count")
    return next((float(edge) for edge, below in buckets if float(below) >= share * count), 0.0)


if __name__ == "__main__":
    run_program(main)
