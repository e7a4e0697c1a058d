"""n-best lists and alignments against brute force and torch's CTC loss."""

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

pytest.importorskip("k2")

from slow_search import labellings, random_log_probs

from dualasr_lib.core.ctc_scores import ctc_alignment, ctc_scores
from dualasr_lib.decoding.ctc_nbest import PrefixConfig, prefix_nbest
from dualasr_lib.lattice.nbest import Text, align, nbest
from dualasr_lib.lattice.options import NbestConfig
from dualasr_lib.lattice.path import SearchConfig
from dualasr_lib.lattice.search import one_best

MakeLogProbs = Callable[..., Tensor]


def slow_ctc(log_probs: Tensor, text: Text) -> float:
    """torch's loss in double precision."""
    return -float(
        torch.nn.functional.ctc_loss(
            log_probs.double()[:, None],
            torch.tensor([list(text)], dtype=torch.int64),
            torch.tensor([len(log_probs)]),
            torch.tensor([len(text)]),
            reduction="none",
        )[0]
    )


def slow_texts(log_probs: Tensor) -> dict[Text, float]:
    """Probability of each text that (S, V) can say, by brute force; natural log."""
    texts: dict[Text, float] = {}
    for path in labellings(log_probs):
        texts[path.tokens] = texts.get(path.tokens, 0.0) + math.exp(path.score)
    return {text: math.log(probability) for text, probability in texts.items()}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("num_frames", [1, 2, 9, 40])
def test_scores_are_those_of_the_ctc_loss(seed: int, num_frames: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_probs = random_log_probs(num_frames, 7, seed, spread=1.0 + seed)
    texts: list[Text] = [(), (3,), (3, 3), tuple([2] * num_frames), tuple([5] * (num_frames + 1))]
    for _ in range(10):
        size = int(torch.randint(1, num_frames + 2, (), generator=generator))
        texts.append(tuple(torch.randint(1, 7, (size,), generator=generator).tolist()))
    found = ctc_scores(log_probs, texts)
    for text, score in zip(texts, found):
        expected = slow_ctc(log_probs, text)
        if expected < float(log_probs.amax(dim=1).sum()) - 700:
            assert score == -math.inf or score == pytest.approx(expected, rel=1e-9)
        else:
            assert score == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert found[4] == -math.inf  # longer than the utterance
    for text, score in zip(texts, found):
        assert ctc_scores(log_probs, [text]) == [pytest.approx(score, rel=1e-12)]


def test_scores_sum_to_one() -> None:
    log_probs = random_log_probs(4, 4, 1)
    texts = list(slow_texts(log_probs))
    assert sum(map(math.exp, ctc_scores(log_probs, texts))) == pytest.approx(1.0, abs=1e-6)


def test_long_utterances_neither_underflow_nor_overflow() -> None:
    log_probs = random_log_probs(3000, 5, 1, spread=0.5)
    best = one_best(log_probs[None], torch.tensor([3000]), SearchConfig(max_tokens=1)).paths[0]
    score = ctc_scores(log_probs, [best.tokens])[0]
    assert best.score < score == pytest.approx(slow_ctc(log_probs, best.tokens), rel=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_align_is_the_best_of_all_alignments(seed: int) -> None:
    log_probs = random_log_probs(6, 4, seed)
    best = {}
    for path in labellings(log_probs):
        known = best.get(path.tokens)
        if known is None or path.score > known.score:
            best[path.tokens] = path
    assert len(best) == 358
    for text in list(best)[seed::6]:
        found = align(log_probs, text)
        assert found.tokens == text
        assert found.frames == best[text].frames
        assert found.score == pytest.approx(best[text].score, abs=1e-5)


def test_align_in_a_large_vocabulary() -> None:
    log_probs = torch.full((4, 5000), -20.0)
    log_probs[range(4), [4999, 4999, 0, 7]] = 0.0
    assert align(log_probs, (4999, 7))[:3] == ((4999, 7), (0, 3), 0.0)


@pytest.mark.parametrize("text", [(1, 2, 3, 1), (2, 2, 1)])
def test_a_text_that_does_not_fit(text: Text) -> None:
    with pytest.raises(ValueError, match=rf"{len(text)} tokens needs 4 frames .* there are 3"):
        align(random_log_probs(3, 4, 1), text)


@pytest.mark.parametrize("seed", range(6))
def test_lists_hold_the_most_probable_texts(seed: int) -> None:
    """With enough paths the list of a short utterance is that of brute force."""
    log_probs = random_log_probs(5, 4, seed)
    truth = slow_texts(log_probs)
    wide = SearchConfig(output_beam=50.0)
    config = NbestConfig(lattice=wide, num_paths=5000, num_texts=5000, text_beam=1e3)
    (found,), fallbacks = nbest(log_probs[None], torch.tensor([5]), config)
    assert fallbacks == 0
    order = sorted(truth, key=lambda text: -truth[text])
    assert [text.tokens for text in found[:6]] == order[:6]
    for text in found:
        assert text.ctc == pytest.approx(truth[text.tokens], abs=1e-5)


@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_each_list(make_log_probs: MakeLogProbs, spread: float) -> None:
    """Distinct, sorted, with the text of the best path; the same in any company and every time."""
    log_probs = torch.stack([make_log_probs(30, 12, seed, spread) for seed in range(8)])
    lens = torch.tensor([12, 30, 1, 30, 0, 17, 5, 29])
    log_probs[0, 12:] = math.nan  # padding
    config = NbestConfig(num_texts=20, num_paths=100, text_beam=1e3)
    lists = nbest(log_probs, lens, config).results
    paths = one_best(log_probs, lens, SearchConfig()).paths
    sizes = [len(texts) for texts in lists]
    assert max(sizes) == 20
    for index, (texts, path, size) in enumerate(zip(lists, paths, lens.tolist())):
        tokens = [text.tokens for text in texts]
        assert path.tokens in tokens
        assert len(set(tokens)) == len(tokens)
        assert [text.ctc for text in texts] == sorted((text.ctc for text in texts), reverse=True)
        if size:
            assert [text.ctc for text in texts] == ctc_scores(log_probs[index, :size], tokens)
        alone = nbest(log_probs[index : index + 1], lens[index : index + 1], config).results[0]
        assert alone == texts
    assert lists[4] == [((), 0.0)]
    assert nbest(log_probs, lens, config).results == lists
    turned = nbest(log_probs.flip(0), lens.flip(0), config).results
    assert turned == lists[::-1]


def test_options_bound_the_list(make_log_probs: MakeLogProbs) -> None:
    log_probs, lens = make_log_probs(30, 12, 1, 3.0)[None], torch.tensor([30])

    def size(**options: float) -> int:
        config = NbestConfig(**{"text_beam": 1e3, **options})  # type: ignore[arg-type]
        return len(nbest(log_probs, lens, config).results[0])

    assert size(num_texts=7) == 7
    assert size(num_paths=1, path_scales=(0.5,)) <= 2
    assert size(num_paths=1, num_texts=1) == 1
    (near,), (far,) = (
        nbest(log_probs, lens, NbestConfig(text_beam=beam)).results for beam in (3.0, 100.0)
    )
    assert near == [text for text in far if text.ctc >= far[0].ctc - 3.0]
    assert 1 <= len(near) < len(far)
    # Flatter paths find more different texts.
    texts = [size(path_scales=(scale,), num_texts=500) for scale in (1.0, 4.0, 16.0)]
    assert texts[0] > texts[1] > texts[2]


def test_silence_says_nothing() -> None:
    log_probs = torch.full((1, 5, 7), -20.0)
    log_probs[:, :, 0] = 0.0
    (texts,) = nbest(log_probs, torch.tensor([5]), NbestConfig()).results
    assert [text.tokens for text in texts] == [()]
    assert texts[0].ctc == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"num_texts": 0},
        {"num_paths": 0},
        {"path_scales": []},
        {"path_scales": [0.0]},
        {"path_scales": [math.nan]},
    ]
    + [{"text_beam": 0.0}],
)
def test_refused_options(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        NbestConfig(**options)  # type: ignore[arg-type]


def test_refused_log_probs() -> None:
    log_probs = random_log_probs(4, 4, 1)[None]
    log_probs[0, 2] = math.nan
    with pytest.raises(ValueError, match="frame 2 of utterance 0"):
        nbest(log_probs, torch.tensor([4]), NbestConfig())


def test_all_texts_of_three_tokens_are_scored() -> None:
    """Brute force again, for every text there is."""
    log_probs = random_log_probs(5, 4, 9)
    truth = slow_texts(log_probs)
    texts = [text for size in range(4) for text in product((1, 2, 3), repeat=size)]
    for text, score in zip(texts, ctc_scores(log_probs, texts)):
        assert score == pytest.approx(truth[text], abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_prefix_search_without_lattices_finds_no_worse_text(seed: int) -> None:
    log_probs = random_log_probs(40, 8, seed, spread=8.0)
    (lattice,) = nbest(log_probs[None], torch.tensor([40]), NbestConfig(text_beam=1.0)).results
    found = prefix_nbest(log_probs, PrefixConfig(text_beam=1.0))
    scores = {text.tokens: text.scores["ctc"] for text in found}
    assert found[0].scores["ctc"] >= lattice[0].ctc - 1e-6
    shared = [text for text in lattice if text.tokens in scores]
    assert shared[:1] == lattice[:1]
    for text in shared:
        assert scores[text.tokens] == pytest.approx(text.ctc)
        assert ctc_alignment(log_probs, text.tokens) == align(log_probs, text.tokens).frames
