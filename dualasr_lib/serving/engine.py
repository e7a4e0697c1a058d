"""The server's side of the decoding process: starts it, talks with it, starts it anew when it dies.

A process of its own, because what kills a decoder (memory, a fault in native code) must not take
the sockets with it: clients are told, and the next ones are served a moment later. Two threads move
orders and answers through the pipe, so that the event loop never waits for the model.
"""

import asyncio
import contextlib
import itertools
import logging
import multiprocessing
import queue
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from dualasr_lib.decoding.events import Final
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
    Lost,
    Order,
    Over,
    Probe,
    Ready,
    Said,
    Stepped,
)
from dualasr_lib.serving.metrics import Metrics
from dualasr_lib.serving.worker import Load, run

__all__ = ["Engine", "Feed", "Listening"]

_LOG = logging.getLogger(__name__)

Listening = Callable[[Said | Heard | Over | Lost], None]
"""Told what becomes of a stream, on the event loop; must not wait."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0


class Feed:
    """The way of one stream to the model."""

    def __init__(self, engine: "Engine", name: int, rate: int, kind: Kind) -> None:
        self._engine, self._name = engine, name
        self._rate, self._width, self._is_live = rate, int(kind[-1]), kind == "<i2"
        self.sent_seconds, self.heard_seconds = 0.0, 0.0
        self._begun = time.monotonic()

    @property
    def backlog_seconds(self) -> float:
        """Audio that was sent and is not heard yet."""
        return self.sent_seconds - self.heard_seconds

    @property
    def ahead_seconds(self) -> float:
        """Audio that has come before anybody can have spoken it, since the stream was opened."""
        return self.sent_seconds - (time.monotonic() - self._begun)

    @property
    def is_live(self) -> bool:
        """Whether somebody is speaking, and waits for the words."""
        return self._is_live

    def send(self, samples: bytes) -> None:
        """More audio."""
        self.sent_seconds += len(samples) / self._width / self._rate
        self._engine.order(Audio(self._name, samples))

    def end(self) -> None:
        """No more audio will come."""
        self._engine.order(End(self._name))

    def drop(self) -> None:
        """Nobody wants it any more; fine at any time."""
        self._engine.forget(self._name)


class Engine:
    """One decoding process after the other.

    Args:
        load: loads the model there; picklable.
    """

    def __init__(self, load: Load, limits: Limits, metrics: Metrics) -> None:
        self._load, self._limits, self._metrics = load, limits, metrics
        self.ready: Ready | None = None
        """What the decoding process said of itself; None while there is none that works."""
        self._names = itertools.count(1)
        self._streams: dict[int, tuple[Feed, Listening]] = {}
        self._probes: dict[int, asyncio.Future[Checked]] = {}
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._process: BaseProcess | None = None
        self._started: asyncio.Future[Ready] | None = None
        self._is_stopping = False
        self._answered = 0.0
        """When the process last said anything, by the monotonic clock."""
        self._keepers: list[asyncio.Task[None]] = []
        self._gone = asyncio.Event()

    async def start(self) -> None:
        """Returns when the model is loaded and has decoded a chunk.

        Raises:
            ValueError: it cannot be loaded.
        """
        await self._launch()
        self._keepers = [asyncio.create_task(self._supervise()), asyncio.create_task(self._watch())]

    async def stop(self) -> None:
        """Ends the decoding process, and whatever it still hears."""
        self._is_stopping = True
        for keeper in self._keepers:
            keeper.cancel()
        self._orders.put(None)
        if self._process is not None:
            await asyncio.to_thread(_end, self._process)

    @property
    def process_id(self) -> int | None:
        """Of the decoding process."""
        return None if self._process is None else self._process.pid

    @property
    def behind_seconds(self) -> float:
        """Unheard audio of the live stream that has most of it, what came too early left out."""
        feeds = [feed for feed, _ in self._streams.values() if feed.is_live]
        behind = [feed.backlog_seconds - max(0.0, feed.ahead_seconds) for feed in feeds]
        return max(behind, default=0.0)

    def open(self, rate: int, kind: Kind, listening: Listening) -> Feed:
        """A new stream; only while there is a process that is ready."""
        name = next(self._names)
        feed = Feed(self, name, rate, kind)
        self._streams[name] = feed, listening
        self.order(Begin(name, rate, kind))
        return feed

    def order(self, order: Order) -> None:
        """Sent as soon as the pipe takes it; nothing happens while there is no process."""
        if self.ready is not None:
            self._orders.put(order)

    def forget(self, name: int) -> None:
        """As `Feed.drop`."""
        if self._streams.pop(name, None) is not None:
            self.order(Drop(name))

    async def probe(self, timeout: float) -> Checked:
        """One chunk, decoded now; those who ask at the same time share one.

        Raises:
            TimeoutError: no answer in time, or no process.
        """
        if self.ready is None:
            raise TimeoutError
        for waiting in self._probes.values():
            return await asyncio.wait_for(asyncio.shield(waiting), timeout)
        number = next(self._names)
        future = self._probes[number] = asyncio.get_running_loop().create_future()
        self.order(Probe(number))
        return await asyncio.wait_for(asyncio.shield(future), timeout)

    async def _launch(self) -> None:
        loop = asyncio.get_running_loop()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(
            target=run, args=(theirs, self._load, self._limits), name="dualasr-decoder", daemon=True
        )
        self._gone.clear()
        self._started = loop.create_future()
        await asyncio.to_thread(self._process.start)
        theirs.close()
        orders = self._orders = queue.SimpleQueue()
        threads: tuple[tuple[Any, Any], ...]
        threads = ((_write, (ours, orders)), (self._read, (ours, loop)))
        for target, arguments in threads:
            threading.Thread(target=target, args=arguments, daemon=True).start()
        self.ready = await self._started
        _LOG.info("the decoding process %s is ready: %s", self._process.pid, self.ready.weights)

    def _read(self, pipe: Connection, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the program ends
            try:
                while True:
                    loop.call_soon_threadsafe(self._told, pipe.recv())
            except (EOFError, OSError):
                loop.call_soon_threadsafe(self._lost)

    def _told(self, answer: Answer) -> None:
        """On the event loop."""
        self._answered = time.monotonic()
        if isinstance(answer, Said | Over | Heard):
            self._about(answer)
        elif isinstance(answer, Stepped):
            self._metrics.stepped(answer.seconds, answer.streams)
        elif isinstance(answer, Checked):
            future = self._probes.pop(answer.number, None)
            if future is not None and not future.done():
                future.set_result(answer)
        elif self._started is not None and not self._started.done():
            if isinstance(answer, Broken):
                self._started.set_exception(ValueError(answer.error))
            else:
                self._started.set_result(answer)

    def _about(self, answer: Said | Over | Heard) -> None:
        feed, listening = self._streams.get(answer.stream, (None, None))
        if isinstance(answer, Said) and isinstance(answer.event, Final):
            self._metrics.finished(answer.event)
        if feed is None or listening is None:
            return
        if isinstance(answer, Heard):
            self._metrics.heard(max(0.0, answer.seconds - feed.heard_seconds))
            feed.heard_seconds = max(feed.heard_seconds, answer.seconds)
            self._metrics.queue.observe(max(0.0, feed.backlog_seconds))
        if isinstance(answer, Over):
            del self._streams[answer.stream]
        listening(answer)

    def _lost(self) -> None:
        """The pipe is closed; on the event loop."""
        self.ready = None
        self._orders.put(None)
        if self._started is not None and not self._started.done():
            self._started.set_exception(ValueError("the decoding process died while it loaded"))
        for future in self._probes.values():
            if not future.done():
                future.set_exception(TimeoutError())
                future.exception()  # whether anybody waits or not
        self._probes.clear()
        streams, self._streams = self._streams, {}
        for name, (_, listening) in streams.items():
            listening(Lost(name))
        self._gone.set()

    async def _supervise(self) -> None:
        pause, since = _FIRST_PAUSE, time.monotonic()
        while not self._is_stopping:
            await self._gone.wait()
            self._metrics.restarts.inc()
            assert self._process is not None
            await asyncio.to_thread(_end, self._process)
            code = self._process.exitcode
            if time.monotonic() - since > 2 * _LONGEST_PAUSE:
                pause = _FIRST_PAUSE
            _LOG.error("the decoding process has ended (%s); the next one in %.1f s", code, pause)
            await asyncio.sleep(pause)
            pause, since = min(2 * pause, _LONGEST_PAUSE), time.monotonic()
            try:
                await self._launch()
            except ValueError as error:
                _LOG.error("the model cannot be loaded: %s", error)
                self._gone.set()

    async def _watch(self) -> None:
        """A decoder that hangs is a dead one; a slow one is not, as long as it says anything."""
        while True:
            await asyncio.sleep(self._limits.hung_seconds / 3)
            if self.ready is None or self._process is None:
                continue
            asked = time.monotonic()
            try:
                await self.probe(self._limits.hung_seconds)
            except TimeoutError:
                if self.ready is not None and self._answered < asked:
                    _LOG.error("the decoding process does not answer: it is ended")
                    self._process.kill()


def _write(pipe: Connection, orders: "queue.SimpleQueue[Order | None]") -> None:
    """Until None comes; the pipe is closed then, which ends the other side."""
    with contextlib.suppress(OSError):
        while (order := orders.get()) is not None:
            pipe.send(order)
    # a shutdown, too, wakes the thread that reads
    with contextlib.suppress(OSError):
        pipe.close()


def _end(process: BaseProcess) -> None:
    process.join(2.0)
    if process.is_alive():
        process.kill()
        process.join()
