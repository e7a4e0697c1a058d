"""Lists of CTC by prefix beam search against brute force, without k2."""

import math
from itertools import groupby, product

import numpy as np
import pytest

from dualasr_lib.core.ctc_scores import Text, ctc_alignment, ctc_scores
from dualasr_lib.decoding.ctc_nbest import PrefixConfig, prefix_nbest

WIDE = PrefixConfig(beam=1000, token_beam=math.inf, text_beam=math.inf)


def random_log_probs(seed: int, frames: int, spread: float = 1.5) -> "np.ndarray":
    logits = np.random.default_rng(seed).normal(0, spread, (frames, 4))
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def spelt(labels: tuple[int, ...]) -> tuple[Text, tuple[int, ...]]:
    """Text of an alignment, and where its tokens begin."""
    tokens, frames, place = [], [], 0
    for label, group in groupby(labels):
        if label:
            tokens.append(label)
            frames.append(place)
        place += len(list(group))
    return tuple(tokens), tuple(frames)


def by_force(log_probs: "np.ndarray") -> list[tuple[Text, tuple[int, ...], float]]:
    """(text, beginnings, log-prob) of every alignment."""
    found = []
    for labels in product(range(log_probs.shape[1]), repeat=len(log_probs)):
        score = float(log_probs[range(len(labels)), labels].sum())
        found.append((*spelt(labels), score))
    return found


@pytest.mark.parametrize("seed", range(6))
def test_with_a_wide_beam_all_texts_are_listed_with_their_probability(seed: int) -> None:
    log_probs = random_log_probs(seed, 5)
    expected: dict[Text, float] = {}
    for text, _, score in by_force(log_probs):
        expected[text] = expected.get(text, 0.0) + math.exp(score)
    found = prefix_nbest(log_probs, WIDE)
    assert {text.tokens for text in found} == expected.keys()
    for text in found:
        assert math.exp(text.scores["ctc"]) == pytest.approx(expected[text.tokens], rel=1e-9)
    scores = [text.scores["ctc"] for text in found]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("seed", range(6))
def test_narrow_beams_keep_what_matters(seed: int) -> None:
    log_probs = random_log_probs(seed, 30, spread=8.0)
    wide = prefix_nbest(log_probs, PrefixConfig(beam=300, token_beam=20.0, text_beam=3.0))
    usual = prefix_nbest(log_probs, PrefixConfig())
    assert [text.tokens for text in usual[:15]] == [text.tokens for text in wide[:15]]
    least = usual[0].scores["ctc"] - 3.0
    assert all(text.scores["ctc"] >= least for text in usual)
    assert (
        usual[0].scores["ctc"] >= ctc_scores(log_probs, [spelt(tuple(log_probs.argmax(1)))[0]])[0]
    )


def test_no_frames_say_nothing() -> None:
    (only,) = prefix_nbest(np.zeros((0, 4)), PrefixConfig())
    assert only.tokens == ()


@pytest.mark.parametrize("seed", range(6))
def test_alignments_are_the_best_ones(seed: int) -> None:
    log_probs = random_log_probs(seed, 6)
    best: dict[Text, tuple[float, tuple[int, ...]]] = {}
    for text, frames, score in by_force(log_probs):
        best[text] = max(best.get(text, (-math.inf, ())), (score, frames))
    for text, (score, frames) in best.items():
        assert ctc_alignment(log_probs, text) == frames, (text, score)


def test_a_text_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="2 tokens has no alignment to 2 frames"):
        ctc_alignment(random_log_probs(0, 2), (3, 3))
