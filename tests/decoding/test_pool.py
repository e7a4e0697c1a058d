"""Many streams in a pool: each says what it would say alone, whoever shares its steps."""

import math
import random
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from dualasr_lib.core.tree import leaves
from dualasr_lib.decoding.contract import Rewritten
from dualasr_lib.decoding.endpoint import EndpointConfig
from dualasr_lib.decoding.events import Final, LiveConfig, Partial
from dualasr_lib.decoding.greedy import OnlineGreedy, greedy
from dualasr_lib.decoding.hypothesis import TokenPath
from dualasr_lib.decoding.live import Listener
from dualasr_lib.decoding.pool import Ended, Failed, ListenerPool
from dualasr_lib.decoding.streaming import ModelStep

Record = Callable[..., Any]
Text = Callable[[Any], str]

QUICK = EndpointConfig(silence_seconds=0.4, pause_seconds=0.16, long_seconds=9, max_seconds=0.8)


class RowState(NamedTuple):
    seen: Tensor
    """(N, 2120) the last window: what a row has heard, and nobody else."""
    age: Tensor
    """(N,) int64."""


class RowModel:
    """Each row of a step by itself, so that the size of a batch changes no bit. Tokens depend on
    the whole window, the age and the last window; a window of NaN gives NaN.
    """

    sample_rate = 16000
    frame_shift_samples = 160
    chunk_samples = 1280
    lookahead_samples = 840
    chunk_frames = 2

    def __init__(self) -> None:
        self.weights = torch.randn(2120, 12, generator=torch.Generator().manual_seed(0))
        self.sizes: list[int] = []

    def init_state(self, batch: int) -> RowState:
        return RowState(torch.zeros(batch, 2120), torch.zeros(batch, dtype=torch.int64))

    def num_feature_frames(self, num_samples: int) -> int:
        return (num_samples + 80) // 160

    def num_output_frames(self, num_samples: int) -> int:
        return math.ceil(math.ceil(self.num_feature_frames(num_samples) / 2) / 2)

    def step(self, window: Tensor, frames_left: Tensor, state: RowState) -> ModelStep:
        self.sizes.append(len(window))
        scores = []
        for samples, left, seen, age in zip(window, frames_left, *state):
            loud = samples.abs().max() > 0.01
            heard = (samples + 0.5 * seen) @ self.weights + 0.01 * age + 0.1 * left.clamp(max=13)
            rows = heard.reshape(2, 6)
            scores.append(torch.cat([rows[:, :1] + 99 * ~loud, rows[:, 1:]], dim=1))
        stacked = torch.stack(scores)
        after = RowState(window.clone(), state.age + 1)
        return ModelStep(stacked.log_softmax(dim=2), after, hidden=stacked)


def second_pass(hidden: Tensor) -> Rewritten:
    """The best tokens but one, as a text of its own."""
    path = greedy(hidden[None].log_softmax(dim=2), torch.tensor([len(hidden)]))[0]
    return Rewritten(TokenPath(path.tokens[:-1], path.frames[:-1], 0.0), fallbacks=len(hidden) % 2)


def talk(seed: int) -> Tensor:
    """Noise and silence by turns, of any length."""
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.zeros(0)]
    for number in range(int(torch.randint(0, 9, (1,), generator=generator))):
        size = int(torch.randint(1, 9000, (1,), generator=generator))
        parts.append(torch.randn(size, generator=generator).clamp(-3, 3) * (number % 2 == seed % 2))
    return torch.cat(parts)


def alone(samples: Tensor, detokenise: Text, config: LiveConfig) -> list[Any]:
    listener = Listener(RowModel(), OnlineGreedy(), detokenise, config, second_pass)
    return [*listener.feed(samples), *listener.finish()]


def timeless(events: Any) -> list[Any]:
    """Events without wall times."""
    return [e._replace(finalise_seconds=0.0) if isinstance(e, Final) else e for e in events]


class Scene:
    """Streams that come, go on by blocks of any size, and end, in a random order."""

    def __init__(self, pool: ListenerPool, talks: dict[Hashable, Tensor], seed: int) -> None:
        self.pool, self.talks, self.rng = pool, dict(talks), random.Random(seed)
        self.said: dict[Hashable, list[Any]] = {name: [] for name in talks}

    def play(self) -> dict[Hashable, list[Any]]:
        coming, going = list(self.talks), dict[Hashable, Tensor]()
        while coming or going or len(self.pool):
            action = self.rng.random()
            if coming and action < 0.2:
                name = coming.pop(0)
                self.pool.open(name)
                going[name] = self.talks[name]
            elif going and action < 0.7:
                self.feed(going)
            else:
                self.step()
        return self.said

    def feed(self, going: dict[Hashable, Tensor]) -> None:
        name = self.rng.choice(list(going))
        size = self.rng.choice([0, 1, 333, 1280, 2121, 7000])
        self.pool.feed(name, going[name][:size])
        going[name] = going[name][size:]
        if not len(going[name]):
            self.pool.finish(name)
            del going[name]

    def step(self) -> None:
        for name, events in self.pool.step().items():
            self.said[name] += events


@pytest.mark.parametrize("max_batch", [1, 3, 64])
@pytest.mark.parametrize("early", [math.inf, 0.08])
@pytest.mark.parametrize("seed", range(6))
def test_a_stream_says_what_it_says_alone(
    detokenise: Text, seed: int, early: float, max_batch: int
) -> None:
    """To the bit, for any order of joining, feeding, stepping and leaving."""
    config = LiveConfig(endpoint=QUICK, early_seconds=early)
    model = RowModel()
    pool = ListenerPool(model, OnlineGreedy(), detokenise, config, second_pass, max_batch=max_batch)
    talks: dict[Hashable, Tensor] = {n: talk(100 * seed + n) for n in range(8)}
    talks["silent"] = torch.zeros(9000)
    said = Scene(pool, talks, seed).play()
    reasons = set()
    for name, samples in talks.items():
        *events, last = said[name]
        assert last == Ended(len(samples) / 16000)
        assert timeless(events) == timeless(alone(samples, detokenise, config))
        reasons |= {event.reason for event in events if isinstance(event, Final)}
    assert {"silence", "length", "end"} <= reasons
    assert max_batch == 1 or max(model.sizes) > 1
    assert max(model.sizes) <= max_batch


def test_finals_hold_every_sample_once(detokenise: Text) -> None:
    for seed in range(20):
        samples = talk(seed)
        finals = [e for e in alone(samples, detokenise, LiveConfig(endpoint=QUICK))
                  if isinstance(e, Final)]  # fmt: skip
        assert [final.segment for final in finals] == list(range(len(finals)))
        ends = [0.0, *(final.end_seconds for final in finals)]
        assert [final.start_seconds for final in finals] == ends[:-1]
        assert ends[-1] == len(samples) / 16000


class Poisoned(RowModel):
    """A model that gives NaN for one stream from some step on."""

    def step(self, window: Tensor, frames_left: Tensor, state: RowState) -> ModelStep:
        result = super().step(window, frames_left, state)
        bad = (window[:, 0] == 0.125) & (state.age > 2)
        log_probs = result.log_probs.masked_fill(bad[:, None, None], math.nan)
        return result._replace(log_probs=log_probs)


def test_a_stream_that_fails_touches_no_other(detokenise: Text) -> None:
    config = LiveConfig(endpoint=QUICK)
    pool = ListenerPool(Poisoned(), OnlineGreedy(), detokenise, config, second_pass)
    talks: dict[Hashable, Tensor] = {name: talk(name) for name in (1, 3, 5)}
    talks["bad"] = torch.full((9000,), 0.125)
    said = Scene(pool, talks, 0).play()
    failed = said["bad"][-1]
    assert isinstance(failed, Failed) and "finite best token" in str(failed.error)
    assert "bad" not in pool
    for name in (1, 3, 5):
        expected = timeless(alone(talks[name], detokenise, config))
        assert timeless(said[name][:-1]) == expected
    listener = Listener(Poisoned(), OnlineGreedy(), detokenise, config)
    with pytest.raises(ValueError, match="finite best token"):
        listener.feed(talks["bad"])


def test_a_model_that_runs_out_of_memory_with_all_goes_on_with_each(detokenise: Text) -> None:
    class Small(RowModel):
        def step(self, window: Tensor, *others: Any) -> ModelStep:
            if len(window) > 1:
                raise MemoryError("too many")
            return super().step(window, *others)

    config = LiveConfig(endpoint=QUICK)
    pool = ListenerPool(Small(), OnlineGreedy(), detokenise, config, second_pass)
    said = Scene(pool, {name: talk(name) for name in range(5)}, 0).play()
    for name, events in said.items():
        expected = timeless(alone(talk(int(str(name))), detokenise, config))
        assert timeless(events[:-1]) == expected


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 12345.0])
def test_bad_blocks_change_nothing(detokenise: Text, bad: float) -> None:
    config = LiveConfig(endpoint=QUICK)
    pool = ListenerPool(RowModel(), OnlineGreedy(), detokenise, config, second_pass)
    samples = torch.cat([talk(7), talk(5)])
    pool.open("a")
    events: list[Any] = []
    for block in samples.split(2000):
        poisoned = block.clone()
        poisoned[len(block) // 2] = bad
        with pytest.raises(ValueError, match="samples must be"):
            pool.feed("a", poisoned)
        pool.feed("a", block)
        events += pool.step().get("a", ())
    pool.finish("a")
    while "a" in pool:
        events += pool.step().get("a", ())
    assert timeless(events[:-1]) == timeless(alone(samples, detokenise, config))


def test_a_second_pass_that_fails_leaves_the_first_text(detokenise: Text) -> None:
    def out_of_memory(hidden: Tensor) -> Rewritten:
        raise MemoryError("no room for 10 frames")

    config, samples = (
        LiveConfig(endpoint=QUICK),
        torch.cat([*map(talk, range(4)), torch.zeros(9000)]),
    )
    listener = Listener(RowModel(), OnlineGreedy(), detokenise, config, out_of_memory)
    got = [e for e in (*listener.feed(samples), *listener.finish()) if isinstance(e, Final)]
    expected = [e for e in alone(samples, detokenise, config) if isinstance(e, Final)]
    assert len(got) == len(expected) > 2
    for final, other in zip(got, expected):
        assert final.text == final.first_pass_text == other.first_pass_text
        assert final.second_pass == ("failed" if other.second_pass == "done" else "none")
        assert ("no room" in final.failure) == (final.second_pass == "failed")
    assert {final.second_pass for final in got} == {"failed", "none"}


class Elsewhere:
    """Tasks are run when the test says so."""

    def __init__(self) -> None:
        self.tasks: list[tuple[Callable[[], Any], Future[Any]]] = []

    def submit(self, task: Callable[[], Any]) -> Future[Any]:
        self.tasks.append((task, Future()))
        return self.tasks[-1][1]

    def run(self, number: int) -> None:
        task, future = self.tasks[number]
        if future.set_running_or_notify_cancel():
            future.set_result(task())


def sentences(record: Record, text: str) -> Tensor:
    samples: Tensor = record("a", text).samples
    return samples


class Spelling:
    """The fake model with hidden states that say which token a frame is."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def step(self, *arguments: Any) -> ModelStep:
        result = self._model.step(*arguments)
        return result._replace(hidden=result.log_probs)


def drain(pool: ListenerPool) -> list[Any]:
    events = list(pool.step().get("a", ()))
    while pool.is_ready:
        events += pool.step().get("a", ())
    return events


def test_second_passes_elsewhere_come_in_order(
    model: Any, record: Record, detokenise: Text
) -> None:
    """The second sentence is ready first; its text waits for that of the first one."""
    place = Elsewhere()
    config = LiveConfig(endpoint=QUICK)
    pool = ListenerPool(
        Spelling(model), OnlineGreedy(), detokenise, config, second_pass, place.submit
    )
    pool.open("a")
    pool.feed("a", sentences(record, "_あい_____" + "うえ______" + "い_"))
    events = drain(pool)
    assert [(type(e).__name__, e.segment, e.text) for e in events] == [
        ("Partial", 0, "あ"),
        ("Partial", 0, "あい"),
        ("Partial", 1, "うえ"),
    ]
    assert (len(place.tasks), pool.num_waiting) == (2, 2)
    place.run(1)
    assert pool.step() == {}
    place.run(0)
    assert [(e.segment, e.text) for e in pool.step()["a"]] == [(0, "あ"), (1, "う")]
    pool.finish("a")
    assert [e.text for e in drain(pool)] == ["い"]
    assert "a" in pool
    place.run(2)
    final, last = pool.step()["a"]
    assert (final.text, final.first_pass_text, final.second_pass) == ("", "い", "done")
    assert isinstance(last, Ended) and "a" not in pool


def test_a_second_pass_that_is_late_is_left_behind(
    model: Any, record: Record, detokenise: Text
) -> None:
    place, time = Elsewhere(), [0.0]
    config = LiveConfig(endpoint=QUICK, deadline_seconds=2.0)
    pool = ListenerPool(
        Spelling(model), OnlineGreedy(), detokenise, config, second_pass, place.submit,
        lambda: time[0],
    )  # fmt: skip
    pool.open("a")
    pool.feed("a", sentences(record, "_あい_____" + "うえ______"))
    drain(pool)
    time[0] = 1.9
    assert pool.step() == {}
    place.run(1)
    time[0] = 2.0
    first, second = pool.step()["a"]
    assert (first.text, first.second_pass) == ("あい", "late")
    assert (second.text, second.second_pass) == ("う", "done")
    assert place.tasks[0][1].cancelled()


def test_a_listener_waits_at_its_end_until_the_deadline(
    model: Any, record: Record, detokenise: Text
) -> None:
    place, config = Elsewhere(), LiveConfig(endpoint=QUICK, deadline_seconds=0.02)
    listener = Listener(
        Spelling(model), OnlineGreedy(), detokenise, config, second_pass, place.submit
    )
    listener.feed(sentences(record, "_あい_____"))
    finals = [event for event in listener.finish() if isinstance(event, Final)]
    assert (finals[0].text, finals[0].second_pass) == ("あい", "late")


def test_a_place_that_takes_no_more_tasks_fails_the_sentence_only(
    model: Any, record: Record, detokenise: Text
) -> None:
    def full(task: Callable[[], Any]) -> Any:
        raise RuntimeError("queue is full")

    config = LiveConfig(endpoint=QUICK)
    listener = Listener(Spelling(model), OnlineGreedy(), detokenise, config, second_pass, full)
    events = [*listener.feed(sentences(record, "_あい_____い_")), *listener.finish()]
    finals = [event for event in events if isinstance(event, Final)]
    assert [(f.text, f.failure) for f in finals] == [
        ("あい", "queue is full"),
        ("い", "queue is full"),
    ]


def test_a_second_pass_begins_before_the_endpoint(
    model: Any, record: Record, detokenise: Text
) -> None:
    """After two frames of silence; thrown away when speech goes on, used when it does not."""
    place = Elsewhere()
    config = LiveConfig(endpoint=QUICK, early_seconds=0.08)
    pool = ListenerPool(
        Spelling(model), OnlineGreedy(), detokenise, config, second_pass, place.submit
    )
    pool.open("a")
    pool.feed("a", sentences(record, "_あ___い"))
    drain(pool)
    assert len(place.tasks) == 1  # at frame 3
    pool.feed("a", sentences(record, "__"))
    drain(pool)
    assert place.tasks[0][1].cancelled()
    pool.feed("a", sentences(record, "__"))
    drain(pool)
    assert len(place.tasks) == 2
    place.run(1)
    pool.feed("a", sentences(record, "__う"))
    final, *_ = [event for event in drain(pool) if isinstance(event, Final)]
    assert (final.reason, final.first_pass_text, final.text) == ("pause", "あい", "あ")
    assert len(place.tasks) == 2  # the endpoint has started none


def test_a_closed_stream_is_forgotten(model: Any, record: Record, detokenise: Text) -> None:
    place, config = Elsewhere(), LiveConfig(endpoint=QUICK)
    pool = ListenerPool(
        Spelling(model), OnlineGreedy(), detokenise, config, second_pass, place.submit
    )
    pool.open("a")
    pool.feed("a", sentences(record, "_あい_____う"))
    drain(pool)
    pool.close("a")
    assert place.tasks[0][1].cancelled()
    assert (len(pool), pool.step()) == (0, {})
    pool.open("a")  # the name is free
    pool.feed("a", sentences(record, "え_"))
    pool.finish("a")
    assert [e.text for e in drain(pool) if isinstance(e, Partial)] == ["え"]


def test_a_stream_that_waits_keeps_its_own_state_only(detokenise: Text) -> None:
    pool = ListenerPool(RowModel(), OnlineGreedy(), detokenise, LiveConfig())
    for name in range(4):
        pool.open(name)
        pool.feed(name, torch.ones(2120 + 1280 * (name > 0)))
    pool.step()
    pool.step()
    states = [pool._streams[name].stream.row.stacked for name in range(4)]
    assert [len(next(leaves(state))[1]) for state in states] == [1, 3, 3, 3]


def test_backlog(detokenise: Text) -> None:
    pool = ListenerPool(RowModel(), OnlineGreedy(), detokenise, LiveConfig())
    pool.open("a")
    pool.feed("a", torch.zeros(16000))
    assert pool.backlog_seconds("a") == 1.0
    pool.step()
    assert pool.backlog_seconds("a") == pytest.approx(1.0 - 0.08)


def test_streams_take_turns(detokenise: Text) -> None:
    """A stream that brings hours at once does not keep the others waiting."""
    pool = ListenerPool(RowModel(), OnlineGreedy(), detokenise, LiveConfig(), max_batch=1)
    noise = torch.randn(16000, generator=torch.Generator().manual_seed(0)).clamp(-3, 3)
    for name in "ab":
        pool.open(name)
        pool.feed(name, noise)
    heard = []
    for _ in range(3):
        pool.step()
        heard.append([round((1 - pool.backlog_seconds(name)) / 0.08) for name in "ab"])
    assert heard == [[1, 0], [1, 1], [2, 1]]


def test_what_is_refused(detokenise: Text) -> None:
    pool = ListenerPool(RowModel(), OnlineGreedy(), detokenise, LiveConfig())
    pool.open("a")
    with pytest.raises(ValueError, match="'a' is open already"):
        pool.open("a")
    for call in (pool.finish, pool.close, pool.backlog_seconds, lambda n: pool.feed(n, [])):
        with pytest.raises(ValueError, match="there is no stream 'b'"):
            call("b")
    pool.finish("a")
    with pytest.raises(ValueError, match="has been finished"):
        pool.feed("a", np.zeros(10, np.float32))
    with pytest.raises(ValueError, match="max_batch"):
        ListenerPool(RowModel(), OnlineGreedy(), detokenise, LiveConfig(), max_batch=0)
    for name in ("deadline_seconds", "early_seconds"):
        with pytest.raises(ValueError, match=name):
            LiveConfig(**{name: 0.0})
