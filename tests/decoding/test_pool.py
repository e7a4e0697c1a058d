"""Many streams in a pool: each says what it would say alone, whoever shares its steps."""

import math
import random
from collections.abc import Hashable
from typing import Any

import numpy as np
import pytest
import torch
from live_cases import GREEDY, QUICK, RowModel, RowState, Text, alone, second_pass, talk, timeless
from torch import Tensor

from dualasr_lib.core.tree import leaves
from dualasr_lib.decoding.events import Final, LiveConfig
from dualasr_lib.decoding.live import Listener, Rules
from dualasr_lib.decoding.pool import Ended, Failed, ListenerPool
from dualasr_lib.decoding.streaming import ModelStep


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
    pool = ListenerPool(Rules(model, GREEDY, detokenise, config, second_pass), max_batch=max_batch)
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
        log_probs = result.frames["ctc"].masked_fill(bad[:, None, None], math.nan)
        return result._replace(frames={"ctc": log_probs})


def test_a_stream_that_fails_touches_no_other(detokenise: Text) -> None:
    config = LiveConfig(endpoint=QUICK)
    pool = ListenerPool(Rules(Poisoned(), GREEDY, detokenise, config, second_pass))
    talks: dict[Hashable, Tensor] = {name: talk(name) for name in (1, 3, 5)}
    talks["bad"] = torch.full((9000,), 0.125)
    said = Scene(pool, talks, 0).play()
    failed = said["bad"][-1]
    assert isinstance(failed, Failed) and "finite best token" in str(failed.error)
    assert "bad" not in pool
    for name in (1, 3, 5):
        expected = timeless(alone(talks[name], detokenise, config))
        assert timeless(said[name][:-1]) == expected
    listener = Listener(Rules(Poisoned(), GREEDY, detokenise, config))
    with pytest.raises(ValueError, match="finite best token"):
        listener.feed(talks["bad"])


def test_a_model_that_runs_out_of_memory_with_all_goes_on_with_each(detokenise: Text) -> None:
    class Small(RowModel):
        def step(self, window: Tensor, *others: Any) -> ModelStep:
            if len(window) > 1:
                raise MemoryError("too many")
            return super().step(window, *others)

    config = LiveConfig(endpoint=QUICK)
    pool = ListenerPool(Rules(Small(), GREEDY, detokenise, config, second_pass))
    said = Scene(pool, {name: talk(name) for name in range(5)}, 0).play()
    for name, events in said.items():
        expected = timeless(alone(talk(int(str(name))), detokenise, config))
        assert timeless(events[:-1]) == expected


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 12345.0])
def test_bad_blocks_change_nothing(detokenise: Text, bad: float) -> None:
    config = LiveConfig(endpoint=QUICK)
    pool = ListenerPool(Rules(RowModel(), GREEDY, detokenise, config, second_pass))
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


def test_a_stream_that_waits_keeps_its_own_state_only(detokenise: Text) -> None:
    pool = ListenerPool(Rules(RowModel(), GREEDY, detokenise, LiveConfig()))
    for name in range(4):
        pool.open(name)
        pool.feed(name, torch.ones(2120 + 1280 * (name > 0)))
    pool.step()
    pool.step()
    states = [pool._streams[name].stream.row.stacked for name in range(4)]
    assert [len(next(leaves(state))[1]) for state in states] == [1, 3, 3, 3]


def test_backlog(detokenise: Text) -> None:
    pool = ListenerPool(Rules(RowModel(), GREEDY, detokenise, LiveConfig()))
    pool.open("a")
    pool.feed("a", torch.zeros(16000))
    assert pool.backlog_seconds("a") == 1.0
    pool.step()
    assert pool.backlog_seconds("a") == pytest.approx(1.0 - 0.08)


def test_streams_take_turns(detokenise: Text) -> None:
    """A stream that brings hours at once does not keep the others waiting."""
    pool = ListenerPool(Rules(RowModel(), GREEDY, detokenise, LiveConfig()), max_batch=1)
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
    pool = ListenerPool(Rules(RowModel(), GREEDY, detokenise, LiveConfig()))
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
        ListenerPool(Rules(RowModel(), GREEDY, detokenise, LiveConfig()), max_batch=0)
    for name in ("budget_seconds", "deadline_seconds", "early_seconds"):
        with pytest.raises(ValueError, match=name):
            LiveConfig(**{name: 0.0})
