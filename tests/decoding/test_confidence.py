"""Confidence of paths: against a slow reference, chunk by chunk as at once, and in the events of
live streams, cuts and second passes included.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from live_cases import QUICK, RowModel, talk
from torch import Tensor

from dualasr_lib.decoding.confidence import (
    ConfidentSearch,
    confident,
    evidence,
    token_posteriors,
    with_confidence,
)
from dualasr_lib.decoding.contract import Rewritten, Sentence
from dualasr_lib.decoding.events import Final, LiveConfig, Partial
from dualasr_lib.decoding.greedy import OnlineGreedy, greedy_search
from dualasr_lib.decoding.hypothesis import TokenPath
from dualasr_lib.decoding.live import Rules, listen
from dualasr_lib.decoding.offline import Heard, Searched
from dualasr_lib.decoding.one_head import OneHead
from dualasr_lib.decoding.streaming import StreamingConfig, decode_streams
from dualasr_lib.metrics.calibration import Calibration

KNOWN = Calibration(slope=0.5, offset=-1.0, mean=0.9, floor=0.5)


def slow_posteriors(log_probs: Tensor, path: TokenPath) -> list[float]:
    """From the frame of each token up to the next one's, its highest probability."""
    ends = [*path.frames[1:], len(log_probs)]
    return [
        max(float(log_probs[frame, token].exp()) for frame in range(begin, end))
        for token, begin, end in zip(path.tokens, path.frames, ends)
    ]


def random_log_probs(size: int, vocab: int = 6) -> Tensor:
    return (3 * torch.randn(size, vocab)).log_softmax(dim=1)


def path_of(log_probs: Tensor) -> Any:
    heard = Heard({"ctc": log_probs[None]}, torch.tensor([len(log_probs)]))
    return greedy_search(heard).paths[0]


@pytest.mark.parametrize("size", [1, 2, 7, 60])
def test_posteriors_are_the_slow_ones(size: int) -> None:
    log_probs = random_log_probs(size)
    path = path_of(log_probs)
    found = token_posteriors(evidence(log_probs), path.tokens, path.frames)
    assert found == pytest.approx(slow_posteriors(log_probs, path), rel=1e-5)
    assert all(type(value) is float for value in found)


def test_a_token_that_is_not_among_the_likeliest_counts_as_the_least_of_them() -> None:
    log_probs = random_log_probs(4, vocab=40)
    least = int(log_probs[1:].amax(dim=0).argmin())
    bound = float(log_probs[1:].exp().topk(8, dim=1).values[:, -1].max())
    (found,) = token_posteriors(evidence(log_probs), [least], [1])
    assert found == pytest.approx(bound)
    assert found >= float(log_probs[1:, least].exp().max())


def test_no_tokens_and_no_frames() -> None:
    assert token_posteriors(evidence(torch.zeros(0, 5)), (), ()) == ()
    for frames in [(2, 1), (0, 3), (-1, 1)]:
        with pytest.raises(ValueError, match=r"must not fall and lie within 0\.\.2"):
            token_posteriors(evidence(random_log_probs(3)), (1, 2), frames)


def test_several_tokens_of_one_frame() -> None:
    """A transducer may say them: each has that frame, the last one those up to the next token."""
    log_probs = random_log_probs(9)
    probs = log_probs.exp()
    found = token_posteriors(evidence(log_probs), (1, 2, 3, 4), (2, 2, 2, 6))
    slow = [probs[2, 1], probs[2, 2], probs[2:6, 3].max(), probs[6:, 4].max()]
    assert found == pytest.approx([float(value) for value in slow], rel=1e-5)
    (last,) = token_posteriors(evidence(log_probs), (1,), (8,))
    assert last == pytest.approx(float(probs[8, 1]), rel=1e-5)


def test_uncalibrated_they_are_the_posteriors() -> None:
    heard = evidence(random_log_probs(9))
    path = TokenPath((1, 2), (3, 5), -1.0)
    bare, known = with_confidence(path, heard, None), with_confidence(path, heard, KNOWN)
    assert bare.confidences == bare.posteriors == known.posteriors
    assert known.confidences == KNOWN.confidences(known.posteriors) != known.posteriors
    assert bare[:3] == path[:3]


def test_whole_utterances_without_what_lies_behind_their_ends() -> None:
    log_probs = torch.stack([random_log_probs(12), random_log_probs(12)])
    log_probs[1, 5:] = torch.nan
    heard = Heard({"ctc": log_probs}, torch.tensor([12, 5]))
    found = confident(greedy_search, KNOWN)(heard)
    for index, size in enumerate([12, 5]):
        path, bare = found.paths[index], path_of(log_probs[index, :size])
        assert (path.tokens, path.frames, path.score) == (bare.tokens, bare.frames, bare.score)
        slow = slow_posteriors(log_probs[index, :size], bare)
        assert path.posteriors == pytest.approx(slow, rel=1e-5)


def test_a_branch_without_ctc_has_no_confidence() -> None:
    def search(heard: Heard) -> Searched:
        return Searched([TokenPath((1,), (0,), 0.0)])

    found = confident(search, KNOWN)(Heard({"other": torch.zeros(1, 1)}, torch.ones(1)))
    assert found.paths[0].confidences == ()


@pytest.mark.parametrize("step", [1, 3, 60])
def test_streams_have_those_of_whole_utterances(step: int) -> None:
    log_probs = random_log_probs(60)
    search = ConfidentSearch(OneHead(OnlineGreedy()), KNOWN)
    state = search.open()
    assert search.finish(state).tokens == ()
    before: list[float] = []
    for begin in range(0, 60, step):
        (after,) = search.step([{"ctc": log_probs[begin : begin + step]}], [state])
        sure = list(after.partial.confidences)
        assert len(sure) == len(after.partial.tokens) == after.num_committed
        # said and followed by another token: final; the last one may only rise
        settled = before[:-1]
        assert sure[: len(settled)] == settled
        assert not before or sure[len(before) - 1] >= before[-1]
        before, state = sure, after.state
    whole = confident(greedy_search, KNOWN)(Heard({"ctc": log_probs[None]}, torch.tensor([60])))
    assert search.finish(state) == whole.paths[0]


@pytest.mark.parametrize("seed", [0, 1])
def test_events_carry_confidences_over_cuts(seed: int, detokenise: Callable[[Any], str]) -> None:
    search, bare = ConfidentSearch(OneHead(OnlineGreedy()), KNOWN), OneHead(OnlineGreedy())
    blocks, config = [talk(seed)], LiveConfig(endpoint=QUICK)
    events = list(listen(blocks, Rules(RowModel(), search, detokenise, config)))
    plain = list(listen(blocks, Rules(RowModel(), bare, detokenise, config)))
    assert {event.reason for event in events if isinstance(event, Final)} > {"length"}
    for event, without in zip(events, plain, strict=True):
        if isinstance(event, Partial):
            assert len(event.confidences) == len(event.committed_text)
            assert event._replace(confidences=()) == without
        else:
            assert isinstance(without, Final) and event.text == without.text
            assert len(event.confidences) == len(event.tokens) == len(event.text)
            assert without.confidences == ()
    assert sum(isinstance(e, Partial) and len(e.confidences) > 1 for e in events) > 5


def test_a_second_pass_brings_its_own(detokenise: Callable[[Any], str]) -> None:
    second = confident(lambda heard: Searched([TokenPath((3,), (0,), 0.0)]), KNOWN)

    def rewrite(sentence: Sentence) -> Rewritten:
        hidden = sentence.hidden
        said = hidden.log_softmax(dim=1)
        return Rewritten(second(Heard({"ctc": said[None]}, torch.tensor([len(said)]))).paths[0])

    search = ConfidentSearch(OneHead(OnlineGreedy()), None)
    events = listen(
        [talk(1)], Rules(RowModel(), search, detokenise, LiveConfig(endpoint=QUICK), rewrite)
    )
    finals = [event for event in events if isinstance(event, Final) and event.text]
    highest = KNOWN.confidences([1.0])[0]
    assert finals and all(len(f.confidences) == 1 for f in finals)
    assert all(final.confidences[0] <= highest for final in finals)  # bare ones reach 1


def test_simulated_streams(model: Any, record: Any, detokenise: Callable[[Any], str]) -> None:
    search = ConfidentSearch(OneHead(OnlineGreedy()))
    run = decode_streams(
        [record("a", "_あ__い_")], model, search, detokenise, StreamingConfig(num_streams=3)
    )
    path = run.hypotheses[0].path
    sure = float(torch.tensor([9.0, 0, 0, 0, 0, 0]).softmax(0)[0])
    assert path.posteriors == pytest.approx([sure, sure])
