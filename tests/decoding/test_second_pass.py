"""Second passes of live streams: elsewhere, late, failed, too early, and in order."""

import math
from collections.abc import Callable
from typing import Any

import torch
from live_cases import (
    GREEDY,
    QUICK,
    Elsewhere,
    Record,
    RowModel,
    Spelling,
    Text,
    alone,
    drain,
    second_pass,
    sentences,
    talk,
    timeless,
)

from dualasr_lib.decoding.contract import Rewritten, Sentence
from dualasr_lib.decoding.events import Final, LiveConfig, Partial
from dualasr_lib.decoding.hypothesis import TokenPath
from dualasr_lib.decoding.live import Listener, Rules
from dualasr_lib.decoding.pool import Ended, ListenerPool


def test_a_second_pass_that_fails_leaves_the_first_text(detokenise: Text) -> None:
    def out_of_memory(sentence: Sentence) -> Rewritten:
        raise MemoryError("no room for 10 frames")

    config, samples = (
        LiveConfig(endpoint=QUICK),
        torch.cat([*map(talk, range(4)), torch.zeros(9000)]),
    )
    listener = Listener(Rules(RowModel(), GREEDY, detokenise, config, out_of_memory))
    got = [e for e in (*listener.feed(samples), *listener.finish()) if isinstance(e, Final)]
    expected = [e for e in alone(samples, detokenise, config) if isinstance(e, Final)]
    assert len(got) == len(expected) > 2
    for final, other in zip(got, expected):
        assert final.text == final.first_pass_text == other.first_pass_text
        assert final.second_pass == ("failed" if other.second_pass == "done" else "none")
        assert ("no room" in final.failure) == (final.second_pass == "failed")
    assert {final.second_pass for final in got} == {"failed", "none"}


def test_second_passes_elsewhere_come_in_order(
    model: Any, record: Record, detokenise: Text
) -> None:
    """The second sentence is ready first; its text waits for that of the first one."""
    place = Elsewhere()
    config = LiveConfig(endpoint=QUICK)
    pool = ListenerPool(
        Rules(Spelling(model), GREEDY, detokenise, config, second_pass, place.submit)
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
        Rules(Spelling(model), GREEDY, detokenise, config, second_pass, place.submit,
        lambda: time[0]),
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
        Rules(Spelling(model), GREEDY, detokenise, config, second_pass, place.submit)
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
    listener = Listener(Rules(Spelling(model), GREEDY, detokenise, config, second_pass, full))
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
        Rules(Spelling(model), GREEDY, detokenise, config, second_pass, place.submit)
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


def test_beginning_early_changes_no_event(detokenise: Text) -> None:
    """Where a second pass does not hear trailing silence, it may begin as early as it likes: the
    same events as of plain second passes, speech that goes on and ends of all kinds included.
    """
    ends = set()
    for seed in range(30):
        samples = talk(seed)
        plain = alone(samples, detokenise, LiveConfig(endpoint=QUICK))
        for early in (0.04, 0.08, 0.12):
            config = LiveConfig(endpoint=QUICK, early_seconds=early, budget_seconds=9.0)
            assert timeless(alone(samples, detokenise, config)) == timeless(plain)
        ends |= {(e.reason, e.second_pass) for e in plain if isinstance(e, Final)}
    assert {("pause", "done"), ("length", "done"), ("end", "done")} <= ends


def test_what_a_second_pass_that_begins_early_hears(
    model: Any, record: Record, detokenise: Text
) -> None:
    """All frames up to the step at which silence was long enough, and without a limit of time;
    one that begins at the endpoint has the budget.
    """
    heard: list[Sentence] = []

    def listening(sentence: Sentence) -> Rewritten:
        heard.append(sentence)
        return Rewritten(TokenPath((1,), (0,), 0.0))

    for early, frames, limit in ((math.inf, 7, 0.5), (0.08, 5, math.inf)):
        heard.clear()
        config = LiveConfig(endpoint=QUICK, early_seconds=early, budget_seconds=0.5)
        rules = Rules(Spelling(model), GREEDY, detokenise, config, listening)
        listener = Listener(rules)
        events = [*listener.feed(sentences(record, "_あい_____うえ"))]
        assert [e.reason for e in events if isinstance(e, Final)] == ["pause"]
        (sentence,) = heard
        assert abs(len(sentence.hidden) - frames) <= 1
        assert sentence.seconds == limit or 0.4 < sentence.seconds <= limit
        assert [text.tokens for text in sentence.proposed] == [(1, 2)]


def test_no_time_for_a_second_pass(model: Any, record: Record, detokenise: Text) -> None:
    """The text of the first pass stands, and the event says what was left out."""

    def hurried(sentence: Sentence) -> Rewritten:
        return Rewritten(None, left_out=("stacks",))

    config = LiveConfig(endpoint=QUICK, budget_seconds=0.1)
    listener = Listener(Rules(Spelling(model), GREEDY, detokenise, config, hurried))
    events = [*listener.feed(sentences(record, "_あい_____い_")), *listener.finish()]
    finals = [e for e in events if isinstance(e, Final)]
    assert [(f.text, f.second_pass, f.left_out) for f in finals] == [
        ("あい", "late", ("stacks",)),
        ("い", "late", ("stacks",)),
    ]


def test_a_closed_stream_is_forgotten(model: Any, record: Record, detokenise: Text) -> None:
    place, config = Elsewhere(), LiveConfig(endpoint=QUICK)
    pool = ListenerPool(
        Rules(Spelling(model), GREEDY, detokenise, config, second_pass, place.submit)
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
