"""The decoding process: one thread steps the model for all streams that are ready, another one
rewrites sentences that have ended.

It reads orders from a pipe and answers on it. It ends when the pipe closes: with its server.
"""

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from dualasr_lib.core.program import USERS_ERRORS, one_line
from dualasr_lib.data.resample import Resampler
from dualasr_lib.decoding.live import Rules
from dualasr_lib.decoding.pool import Ended, Failed, ListenerPool
from dualasr_lib.decoding.second_pass import Pending, Task
from dualasr_lib.recognition.recogniser import Recogniser
from dualasr_lib.serving.limits import Limits
from dualasr_lib.serving.messages import (
    Answer,
    Audio,
    Begin,
    Broken,
    Checked,
    Drop,
    End,
    Heard,
    Kind,
    Order,
    Over,
    Probe,
    Ready,
    Said,
    Stepped,
)

__all__ = ["Load", "run"]

Load = Callable[[], Recogniser]
"""Loads the model, in the decoding process: must be picklable."""

_GLANCE = 0.02  # seconds between two looks at second passes that are under way
_ORDERS = 512  # between two steps at most


def run(pipe: Connection, load: Load, limits: Limits) -> None:
    """The process, until the pipe closes."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the server's, which ends this process itself
        signal.signal(number, signal.SIG_IGN)
    try:
        recogniser = load()
        worker = _Worker(pipe, recogniser.rules, limits)
    except USERS_ERRORS as error:
        pipe.send(Broken(one_line(error)))
        return
    try:
        chunk_ms = round(1000 * worker.probe())
        has_second = recogniser.rules.second_pass is not None
        worker.say(Ready(recogniser.weights, recogniser.sample_rate, chunk_ms, has_second))
        while True:
            worker.turn()
    except (EOFError, OSError):  # the server has ended
        pass


class _Source:
    """Audio of one stream on its way to the pool."""

    def __init__(self, rate: int, kind: Kind, to_rate: int) -> None:
        self.resampler, self.rate, self.kind = Resampler(rate, to_rate), rate, kind
        self.seconds = 0.0
        """That have come."""

    def samples(self, data: bytes) -> Any:
        """(n,) float32 at the model's rate."""
        samples = np.frombuffer(data, self.kind)
        self.seconds += len(samples) / self.rate
        if self.kind == "<i2":
            samples = samples.astype(np.float32) / 32768.0
        return self.resampler.push(samples)


class _Worker:
    def __init__(self, pipe: Connection, rules: Rules, limits: Limits) -> None:
        self._pipe = pipe
        second = _SecondPasses(limits.second_passes)
        config = replace(rules.config, deadline_seconds=limits.second_pass_seconds)
        self._rules = replace(rules, config=config, submit=second.submit)
        self._pool = ListenerPool(self._rules)
        self._sources: dict[int, _Source] = {}

    def say(self, answer: Answer) -> None:
        """To the server."""
        self._pipe.send(answer)

    def probe(self) -> float:
        """Decodes a chunk of silence; its seconds."""
        rules = self._rules
        size = rules.model.chunk_samples
        live = rules.finished(rules.fed(rules.open(), np.zeros(2 * size, np.float32)))
        if not rules.is_ready(live):
            raise ValueError("a chunk was given, but the model is not ready for a step")
        rules.stepped([live])
        return size / rules.model.sample_rate

    def turn(self) -> None:
        """All orders that have come, then one step."""
        wait: float | None = None
        if self._pool.is_ready:
            wait = 0.0
        elif self._pool.num_waiting:
            wait = _GLANCE
        for _ in range(_ORDERS):
            if not self._pipe.poll(wait):
                break
            self._obey(self._pipe.recv())
            wait = 0.0
        if len(self._pool):
            self._step()

    def _obey(self, order: Order) -> None:
        if isinstance(order, Probe):
            begun = time.perf_counter()
            self.probe()
            seconds = time.perf_counter() - begun
            self.say(Checked(order.number, seconds, len(self._sources)))
        elif isinstance(order, Begin):
            self._pool.open(order.stream)
            source = _Source(order.rate, order.kind, self._rules.model.sample_rate)
            self._sources[order.stream] = source
        elif order.stream in self._sources:  # it may have failed meanwhile
            self._about(order, self._sources[order.stream])

    def _about(self, order: Audio | End | Drop, source: _Source) -> None:
        stream = order.stream
        try:
            if isinstance(order, Audio):
                self._pool.feed(stream, source.samples(order.samples))
            elif isinstance(order, End):
                self._pool.feed(stream, source.resampler.finish())
                self._pool.finish(stream)
            else:
                self._pool.close(stream)
                del self._sources[stream]
        except Exception as error:  # of this stream only
            self._pool.close(stream)
            self._over(stream, one_line(error), source.seconds)

    def _step(self) -> None:
        is_ready, begun = self._pool.is_ready, time.perf_counter()
        before = {name: self._pool.backlog_seconds(name) for name in self._sources}
        said = self._pool.step()
        seconds = time.perf_counter() - begun
        if is_ready:
            after = {n: self._pool.backlog_seconds(n) if n in self._pool else 0.0 for n in before}
            stepped = [name for name in before if after[name] < before[name]]
            self.say(Stepped(seconds, len(stepped)))
            for stepped_one in stepped:
                heard = self._sources[stepped_one].seconds - after[stepped_one]
                self.say(Heard(stepped_one, heard))
        for name, events in said.items():
            stream: Any = name  # as it was opened
            for event in events:
                if isinstance(event, Ended | Failed):
                    error = one_line(event.error) if isinstance(event, Failed) else ""
                    self._over(stream, error, event.audio_seconds)
                else:
                    self.say(Said(stream, event))

    def _over(self, stream: int, error: str, seconds: float) -> None:
        del self._sources[stream]
        self.say(Over(stream, error, seconds))


class _SecondPasses:
    """One thread for them, and a bound of how many wait."""

    def __init__(self, most: int) -> None:
        self._executor = ThreadPoolExecutor(1, "second pass")
        self._places = threading.Semaphore(most)

    def submit(self, task: Task) -> Pending:
        """As `decoding.second_pass.Submit`.

        Raises:
            RuntimeError: too many wait: the sentence keeps its first text.
        """
        if not self._places.acquire(blocking=False):
            raise RuntimeError("too many sentences wait for their second pass")
        future = self._executor.submit(task)
        future.add_done_callback(lambda _: self._places.release())
        return future
