"""Beam search of a transducer: against every alignment, against its definition, and chunks against
all at once.
"""

import math
from typing import Any

import pytest
import torch
from transducer_searches import all_texts, bigram, draw, in_chunks, lm_score, slow_beam

from dualasr_lib.decoding.hypothesis import TokenPath
from dualasr_lib.decoding.transducer.beam import TransducerBeam
from dualasr_lib.decoding.transducer.options import BeamConfig
from dualasr_lib.model.encoder import Encoded
from dualasr_lib.model.heads.contract import NbestTexts

EVERYTHING = {"score_beam": math.inf, "recombine": "text"}


class Watch:
    """Sees that what is committed stays."""

    def __init__(self) -> None:
        self.committed: dict[int, tuple[int, ...]] = {}
        self.has_been_unsure = False

    def __call__(self, stream: int, step: Any) -> None:
        sure, text = self.committed.get(stream, ()), step.partial.tokens
        assert text[: len(sure)] == sure
        assert len(sure) <= step.num_committed <= len(text)
        self.has_been_unsure |= step.num_committed < len(text)
        self.committed[stream] = text[: step.num_committed]


def states_of(search: TransducerBeam, frames: list[torch.Tensor]) -> list[Any]:
    steps = search.step(frames, [search.open()] * len(frames))
    return [step.state for step in steps]


def whole(search: TransducerBeam, frames: list[torch.Tensor]) -> list[TokenPath]:
    return [search.finish(state) for state in states_of(search, frames)]


@pytest.mark.parametrize("lm_scale", [None, 0.7])
@pytest.mark.parametrize(
    ("max_symbols", "num_frames", "options"),
    [(1, 5, {}), (2, 3, {}), (2, 3, {"blank_penalty": 1.0, "temperature": 0.6}), (4, 2, {})],
)
def test_a_beam_that_holds_everything_sums_all_alignments(
    max_symbols: int, num_frames: int, options: dict[str, float], lm_scale: float | None
) -> None:
    for seed in range(3):
        head, _, (frames,) = draw(seed, lens=(num_frames,), vocab_size=3)
        lm = None if lm_scale is None else bigram(3, seed, lm_scale)
        config = BeamConfig(beam=600, max_symbols=max_symbols, **EVERYTHING, **options)
        search = TransducerBeam(head.tables(), config, lm)
        (state,) = states_of(search, [frames])
        listed = search.ranked(state)
        expected = all_texts(head, frames, config, max_symbols)
        assert len(listed) == len(expected)
        totals = []
        for text in listed:
            assert text.scores["transducer"] == pytest.approx(expected[text.tokens], abs=1e-4)
            totals.append(text.scores["transducer"])
            if lm is not None:
                last = list(text.tokens[-1:]) or [0]
                ended = lm_score(lm, text.tokens) + lm.final(last)[0]
                assert text.scores["lm"] == pytest.approx(ended, abs=1e-9)
                totals[-1] += lm.scale * ended
        assert totals == pytest.approx(sorted(totals, reverse=True), abs=1e-9)
        path = search.finish(state)
        assert path.tokens == listed[0].tokens
        assert path.score == pytest.approx(totals[0], abs=1e-9)
        assert len(path.frames) == len(path.tokens)
        assert list(path.frames) == sorted(path.frames)


@pytest.mark.parametrize(("max_symbols", "topology"), [(1, "modified"), (12, "regular")])
def test_scores_are_those_of_the_loss(max_symbols: int, topology: str) -> None:
    """One token per frame is a modified transducer, many are a regular one."""
    head, states, frames = draw(1, lens=(6, 4, 5), vocab_size=3)
    config = BeamConfig(beam=700, max_symbols=max_symbols, **EVERYTHING)
    if max_symbols > 1:
        config = BeamConfig(beam=60, max_symbols=max_symbols, **EVERYTHING)
    head.options = type(head.options)(
        sizes=head.options.sizes, loss=type(head.options.loss)(topology=topology)
    )
    search = TransducerBeam(head.tables(), config)
    for h, state in zip(states, states_of(search, frames)):
        best = search.ranked(state)[:5]
        texts = NbestTexts.padded([text.tokens for text in best], [0] * len(best))
        wanted = head.score(Encoded(h[None], torch.tensor([len(h)])), texts)
        found = torch.tensor([text.scores["transducer"] for text in best])
        torch.testing.assert_close(found, wanted, atol=2e-2 if max_symbols > 1 else 1e-3, rtol=0)


@pytest.mark.parametrize("recombine", ["context", "text"])
@pytest.mark.parametrize("max_symbols", [1, 3])
@pytest.mark.parametrize("lm_scale", [None, 0.5])
def test_it_is_what_its_definition_says(
    recombine: Any, max_symbols: int, lm_scale: float | None
) -> None:
    for seed in range(4):
        head, _, frames = draw(seed, lens=(9, 0, 14, 1), vocab_size=5)
        lm = None if lm_scale is None else bigram(5, seed, lm_scale)
        config = BeamConfig(beam=3, score_beam=7.0, recombine=recombine, max_symbols=max_symbols)
        search = TransducerBeam(head.tables(), config, lm)
        for rows, state in zip(frames, states_of(search, frames)):
            expected = slow_beam(head, rows, config, lm)
            scores = [hypothesis.score for hypothesis in state.beam]
            assert scores == pytest.approx([score for _, score in expected], abs=1e-3)
            unended = TransducerBeam(head.tables(), config)
            best = unended.finish(state)
            assert best.tokens == expected[0][0]
            assert sorted(t.tokens for t in unended.ranked(state)) == sorted(t for t, _ in expected)


@pytest.mark.parametrize("lm_scale", [None, 0.3])
@pytest.mark.parametrize("max_symbols", [1, 2])
@pytest.mark.parametrize("recombine", ["context", "text"])
def test_chunks_and_company_change_no_bit(
    recombine: Any, max_symbols: int, lm_scale: float | None
) -> None:
    """And what is committed stays."""
    config = BeamConfig(beam=4, recombine=recombine, max_symbols=max_symbols)
    for seed in range(3):
        head, _, frames = draw(seed, lens=(40, 0, 33, 17, 1, 28, 50), joiner_dim=(16, 13)[seed % 2])
        lm = None if lm_scale is None else bigram(7, seed, lm_scale)
        search = TransducerBeam(head.tables(), config, lm)
        watch = Watch()
        states = in_chunks(search, frames, seed, watch)
        assert watch.has_been_unsure
        together = [(search.finish(state), search.ranked(state)) for state in states]
        at_once = states_of(search, frames)
        assert together == [(search.finish(state), search.ranked(state)) for state in at_once]
        alone = [states_of(search, [rows])[0] for rows in frames]
        assert together == [(search.finish(state), search.ranked(state)) for state in alone]
        for stream, (path, _) in enumerate(together):
            sure = watch.committed.get(stream, ())
            assert lm is not None or path.tokens[: len(sure)] == sure


def test_an_early_doubt_is_over_when_texts_go_on_alike() -> None:
    """With contexts recombined; otherwise it stays in the beam for ever."""
    outcomes = [1, 0, 0, 3, 0, 0, 4, 0, 0, 3, 0, 0] * 30
    log_probs = torch.full((len(outcomes), 5), -20.0)
    log_probs[range(len(outcomes)), outcomes] = 0.0
    log_probs[0, 2] = -0.1
    frames = torch.atanh(log_probs / 60.0)
    tables = {
        "contexts": torch.zeros(2, 5, 4),
        "prediction": torch.zeros(5, 4),
        "prediction_bias": torch.zeros(5),
        "output": 60.0 * torch.eye(5),
        "output_bias": torch.zeros(5),
    }
    said = tuple(token for token in outcomes if token)
    for recombine, longest in (("context", 2), ("text", len(said))):
        search = TransducerBeam(tables, BeamConfig(recombine=recombine))
        state, tails = search.open(), []
        for chunk in frames.split(4):
            (step,) = search.step([chunk], [state])
            state = step.state
            tails.append(len(step.partial.tokens) - step.num_committed)
        assert search.finish(state).tokens == said
        assert max(tails) == longest


def test_a_wide_beam_finds_no_worse_a_path_than_greedy() -> None:
    """The score of one hypothesis that never recombines is that of its path."""
    head, _, frames = draw(2, lens=(30, 25, 40))
    narrow = whole(TransducerBeam(head.tables(), BeamConfig(beam=1)), frames)
    wide = whole(TransducerBeam(head.tables(), BeamConfig(beam=16, recombine="text")), frames)
    assert all(w.score >= n.score for w, n in zip(wide, narrow))
    assert any(w.score > n.score + 1.0 for w, n in zip(wide, narrow))


def test_refusals() -> None:
    head, _, frames = draw(0)
    search = TransducerBeam(head.tables(), BeamConfig())
    frames[2][9, 1] = torch.nan
    with pytest.raises(ValueError, match="must be finite at each frame, but frame 9 has NaN"):
        whole(search, frames)
    with pytest.raises(ValueError, match=r"must be \(frames, 16\), but are \(3, 15\)"):
        search.step([torch.zeros(3, 15)], [search.open()])
    with pytest.raises(ValueError, match="1 streams have frames, but 0 a state"):
        search.step([torch.zeros(3, 16)], [])
    assert search.step([], []) == []
    empty = search.step([torch.zeros(0, 16)], [search.open()])[0]
    assert empty.partial == search.finish(empty.state) == TokenPath((), (), 0.0)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"beam": 0}, "`beam` must be at least 1"),
        ({"score_beam": 0.0}, "`score_beam` must be positive"),
        ({"score_beam": math.nan}, "`score_beam` must be positive"),
        ({"max_symbols": 0}, "`max_symbols` must be at least 1"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        BeamConfig(**options)
