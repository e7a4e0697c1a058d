"""Greedy search of a transducer: against outcome by outcome, and chunks against all at once."""

from typing import Any

import pytest
import torch
from transducer_searches import draw, in_chunks, log_probs, slow_greedy

from dualasr_lib.decoding.hypothesis import TokenPath
from dualasr_lib.decoding.transducer.greedy import TransducerGreedy
from dualasr_lib.decoding.transducer.joiner import BLOCK, Joiner
from dualasr_lib.decoding.transducer.options import GreedyConfig, OutcomeConfig
from dualasr_lib.model.encoder import Encoded

CONFIGS = (
    GreedyConfig(),
    GreedyConfig(max_symbols=3),
    GreedyConfig(max_symbols=2, blank_penalty=1.0, temperature=0.7),
    GreedyConfig(blank_penalty=-2.0, temperature=2.0),
)


def whole(search: TransducerGreedy, frames: list[torch.Tensor]) -> list[TokenPath]:
    steps = search.step(frames, [search.open()] * len(frames))
    return [search.finish(step.state) for step in steps]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_best_outcome_after_the_other(seed: int, config: GreedyConfig) -> None:
    head, _, frames = draw(seed, lens=(20, 0, 33, 1, 7, 12, 25, 3, 31, 18, 2, 40, 9))
    paths = whole(TransducerGreedy(head.tables(), config), frames)
    assert any(path.tokens for path in paths)
    for path, rows in zip(paths, frames):
        expected = slow_greedy(head, rows, config, config.max_symbols)
        assert path[:2] == expected[:2]
        assert path.score == pytest.approx(expected.score, abs=1e-4)


def test_it_says_what_validation_of_the_head_says() -> None:
    head, states, frames = draw(3)
    lens = torch.tensor([len(rows) for rows in states])
    h = torch.nn.utils.rnn.pad_sequence(states, batch_first=True)
    paths = whole(TransducerGreedy(head.tables(), GreedyConfig()), frames)
    assert [path.tokens for path in paths] == head.texts(Encoded(h, lens))


@pytest.mark.parametrize("config", CONFIGS[:3])
@pytest.mark.parametrize("seed", range(6))
def test_chunks_and_company_change_no_bit(seed: int, config: GreedyConfig) -> None:
    """Nor does the width of the joiner; all that was shown stays."""
    head, _, frames = draw(seed, lens=(40, 0, 33, 17, 1, 28, 50), joiner_dim=(16, 13)[seed % 2])
    search = TransducerGreedy(head.tables(), config)
    shown: dict[int, TokenPath] = {}

    def watch(stream: int, step: Any) -> None:
        before = shown.get(stream, TokenPath((), (), 0.0))
        assert step.partial.tokens[: len(before.tokens)] == before.tokens
        assert step.num_committed == len(step.partial.tokens)
        shown[stream] = step.partial

    states = in_chunks(search, frames, seed, watch)
    together = [search.finish(state) for state in states]
    assert together == whole(search, frames)
    assert together == [whole(search, [rows])[0] for rows in frames]
    assert [state.num_frames for state in states] == [len(rows) for rows in frames]


def test_no_row_of_the_joiner_knows_of_the_others() -> None:
    """Any number of rows in any order, to the bit; and it is the head's joiner."""
    head, _, (frames, *_) = draw(0, lens=(50,), vocab_size=301)
    config = OutcomeConfig(blank_penalty=0.3, temperature=1.5)
    joiner = Joiner(head.tables(), config)
    contexts = torch.randint(0, 301, (50, 2), generator=torch.Generator().manual_seed(0))
    texts = joiner.texts(contexts)
    logits, norm = joiner.outcomes(frames, texts)
    for size in (1, 2, 5, BLOCK, BLOCK + 1, 31):
        chosen = torch.randperm(50, generator=torch.Generator().manual_seed(size))[:size]
        assert torch.equal(joiner.texts(contexts[chosen]), texts[chosen])
        again = joiner.outcomes(frames[chosen], texts[chosen])
        assert torch.equal(again.logits, logits[chosen]) and torch.equal(again.norm, norm[chosen])
    for row, frame, context in zip(logits - norm[:, None], frames, contexts.tolist()):
        torch.testing.assert_close(
            row.double(), log_probs(head, frame, context, config), atol=1e-4, rtol=0
        )


def test_refusals() -> None:
    head, _, frames = draw(0)
    search = TransducerGreedy(head.tables(), GreedyConfig())
    frames[0][4, 3] = torch.nan
    with pytest.raises(ValueError, match="must be finite at each frame, but frame 4 has NaN"):
        whole(search, frames)
    state = search.step([frames[2]], [search.open()])[0].state
    with pytest.raises(ValueError, match="but frame 37 has NaN"):
        search.step([frames[0]], [state])
    with pytest.raises(ValueError, match=r"must be \(frames, 16\), but are \(3, 15\)"):
        search.step([torch.zeros(3, 15)], [search.open()])
    with pytest.raises(ValueError, match="1 streams have frames, but 0 a state"):
        search.step([torch.zeros(3, 16)], [])
    assert search.step([], []) == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_symbols": 0}, "`max_symbols` must be at least 1"),
        ({"temperature": 0.0}, "`temperature` must be positive"),
        ({"temperature": float("nan")}, "`temperature` must be positive"),
        ({"blank_penalty": float("inf")}, "`blank_penalty` must be finite"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        GreedyConfig(**options)
