"""Many live streams of any age through one model: each step takes one window of every stream that
is ready.

    pool = ListenerPool(Rules(model, search, detokenise, submit=executor.submit))
    pool.open("a"); pool.feed("a", block); pool.open("b"); ...
    for name, events in pool.step().items(): ...
    pool.finish("a")                    # its last event is `Ended`

The texts of a stream are those of a `Listener` of its own, whoever shares its steps. What goes
wrong in one stream ends that one, with `Failed`, and no other. Streams are values (`live.Live`):
the pool holds nothing else, reads no clock but for deadlines, and starts no thread. It is not
thread-safe: one thread calls it, and may be told by `submit`'s tasks when to call it again.
"""

from collections.abc import Hashable
from typing import Any, NamedTuple

from dualasr_lib.decoding.events import Event
from dualasr_lib.decoding.live import Live, News, Rules

__all__ = ["Ended", "Failed", "ListenerPool", "PoolEvent"]


class Ended(NamedTuple):
    """The last event of a stream that was finished: its name is free again."""

    audio_seconds: float


class Failed(NamedTuple):
    """The last event of a stream that cannot go on: its name is free again."""

    error: Exception
    audio_seconds: float


PoolEvent = Event | Ended | Failed


class ListenerPool:
    """Live streams by name.

    Args:
        rules: how they are heard.
        max_batch: streams of a step at most; the others' turn comes first at the next one.
    """

    def __init__(self, rules: Rules, max_batch: int = 64) -> None:
        if max_batch < 1:
            raise ValueError(f"`max_batch` must be at least 1, but is {max_batch}")
        self._rules = rules
        self._max_batch = max_batch
        self._streams: dict[Hashable, Live] = {}
        """In the order of their turns."""

    def __len__(self) -> int:
        """Streams that are open."""
        return len(self._streams)

    def __contains__(self, name: Hashable) -> bool:
        """Whether a stream of that name is open."""
        return name in self._streams

    def open(self, name: Hashable) -> None:
        """A new stream.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._streams:
            raise ValueError(f"a stream must have a name of its own, but {name!r} is open already")
        self._streams[name] = self._rules.open()

    def feed(self, name: Hashable, block: Any) -> None:
        """More audio of a stream: (n,) float samples in [-1, 1], or int16, torch or numpy, n >= 0.

        Raises:
            ValueError: no such stream, one that was finished, or a block that a `Listener` would
                refuse: nothing has changed, the stream may go on or be closed.
        """
        self._streams[name] = self._rules.fed(self._live(name), block)

    def finish(self, name: Hashable) -> None:
        """No more audio of a stream will come; its last texts, and `Ended`, come from `step`.

        Raises:
            ValueError: no such stream.
        """
        self._streams[name] = self._rules.finished(self._live(name))

    def close(self, name: Hashable) -> None:
        """Forgets a stream at once, with all that it has not said yet.

        Raises:
            ValueError: no such stream.
        """
        self._rules.dropped(self._live(name))
        del self._streams[name]

    def backlog_seconds(self, name: Hashable) -> float:
        """Audio of a stream that has come and was not heard yet; below a window it waits for more.

        Raises:
            ValueError: no such stream.
        """
        return self._rules.backlog_seconds(self._live(name))

    @property
    def is_ready(self) -> bool:
        """Whether `step` would step the model now; final texts may come from it anyway."""
        return any(map(self._rules.is_ready, self._streams.values()))

    @property
    def num_waiting(self) -> int:
        """Final texts that wait for a second pass."""
        return sum(len(live.waiting) for live in self._streams.values())

    def step(self) -> dict[Hashable, tuple[PoolEvent, ...]]:
        """One step of the model for the streams that are ready, and what there is to say of any.

        A stream says at most one step's worth: call it again while `is_ready`.
        """
        said: dict[Hashable, list[PoolEvent]] = {name: [] for name in self._streams}
        ready = [name for name, live in self._streams.items() if self._rules.is_ready(live)]
        turn = ready[: self._max_batch]
        for name, outcome in zip(turn, self._stepped(turn)):
            live = self._streams.pop(name)  # and to the end: the others' turn comes first
            if isinstance(outcome, Exception):
                self._rules.dropped(live)
                said[name].append(Failed(outcome, self._rules.audio_seconds(live)))
            else:
                self._streams[name], news = outcome
                said[name] += news
        for name in list(self._streams):
            said[name] += self._collect(name, settle=name not in turn)
        return {name: tuple(events) for name, events in said.items() if events}

    def _live(self, name: Hashable) -> Live:
        if name not in self._streams:
            raise ValueError(f"there is no stream {name!r}: it was not opened, or is over")
        return self._streams[name]

    def _stepped(self, names: list[Hashable]) -> list[News | Exception]:
        """Each stream after the step, or why it cannot go on.

        If a step fails, each stream is tried alone: streams are values, so all are as they were.
        """
        if not names:
            return []
        try:
            return list(self._rules.stepped([self._streams[name] for name in names]))
        except Exception as error:
            if len(names) == 1:
                return [error]
        return [outcome for name in names for outcome in self._stepped([name])]

    def _collect(self, name: Hashable, settle: bool) -> list[PoolEvent]:
        """Final texts of a stream that are there; a stream that has none left to come is over."""
        rules, live = self._rules, self._streams[name]
        try:
            live, finals = rules.collected(rules.closed(live))
        except Exception as error:
            rules.dropped(live)
            del self._streams[name]
            return [Failed(error, rules.audio_seconds(live))]
        self._streams[name] = rules.settled(live) if settle else live
        if not rules.is_over(live):
            return list(finals)
        del self._streams[name]
        return [*finals, Ended(rules.audio_seconds(live))]
