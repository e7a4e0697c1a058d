"""What only searches of a transducer do: weights of the head, lists of their own, no lexicon."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch

pytest.importorskip("sentencepiece")  # `language` knows tokenizers
pytest.importorskip("k2")

from short_cases import ARPA, TOKENIZER, V, detokenise, given, heard

from dualasr_lib.decoding.coordinates import tune_by_coordinates
from dualasr_lib.decoding.rescoring import Scales, tune
from dualasr_lib.lattice.lm import text_score
from dualasr_lib.recognition.language import Language, load_language
from dualasr_lib.recognition.methods.method import Ingredients
from dualasr_lib.recognition.methods.registry import METHODS, find

BEAMS = ("transducer-beam", "fast-beam")
SEARCHES = [name for name in METHODS if find(name).heads[0] == "transducer"]


class _Batch(NamedTuple):
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    durations: tuple[float, ...]


@pytest.fixture
def arpa(tmp_path: Path) -> Path:
    path = tmp_path / "lm.arpa"
    path.write_text(ARPA, encoding="utf-8")
    return path


@pytest.fixture
def language(arpa: Path) -> Language:
    return load_language(TOKENIZER, arpa)


def words_of(arpa: Path, tmp_path: Path, lexicon: str) -> Language:
    (tmp_path / "lexicon.txt").write_text(lexicon, encoding="utf-8")
    return load_language(TOKENIZER, arpa, tmp_path / "lexicon.txt")


def test_the_own_beam_takes_no_lexicon(arpa: Path, tmp_path: Path) -> None:
    words = given(words_of(arpa, tmp_path, "う う\n"))
    with pytest.raises(ValueError, match="transducer-beam takes an n-gram of tokens"):
        find("transducer-beam").offline([], words)
    with pytest.raises(ValueError, match="transducer-beam takes an n-gram of tokens"):
        find("transducer-beam").online([], words, Scales())


def test_the_beam_of_k2_says_only_words_of_a_lexicon(arpa: Path, tmp_path: Path) -> None:
    """Heard are あい and ああい; the words are あ and あう, whose n-gram counts at their ends."""
    language = words_of(arpa, tmp_path, "あ あ\nい あ う\n")
    assert language.lm is not None
    made = find("fast-beam").offline([], given(language))
    scales = Scales(lm=0.5)
    found = made.search(scales)(heard())
    assert [detokenise(path.tokens) for path in found.paths] == ["あう", "ああう"]
    for path, texts in zip(found.paths, found.nbest):
        assert texts[0].scores["lm"] == pytest.approx(text_score(language.lm, path.tokens))
        assert scales.total(texts[0]) == pytest.approx(path.score)
    live = find("fast-beam").online([], given(language), scales).search
    frames = [{"transducer": rows} for rows in heard().rows("transducer")]
    steps = live.step(frames, [live.open()] * 2)
    assert [live.finish(step.state).tokens for step in steps] == [p.tokens for p in found.paths]


@pytest.mark.parametrize("method", SEARCHES)
def test_frames_that_are_not_finite_are_refused(method: str) -> None:
    """Those behind an utterance's end are not read."""
    search = find(method).offline([], given(Language())).search(Scales())
    assert len(search(heard()).paths) == 2
    broken = heard()
    broken.frames["transducer"][1, 2, 0] = torch.nan
    with pytest.raises(ValueError, match="must be finite at each frame, but frame 2 has NaN"):
        search(broken)
    nothing = heard()._replace(lens=torch.tensor([0, 5]))
    assert search(nothing).paths[0].tokens == ()


def test_a_beam_that_had_to_be_widened_is_counted(language: Language) -> None:
    """Nothing of the n-gram ends within a tiny beam: each doubling of each utterance counts."""
    narrow = find("fast-beam").offline(["beam=0.01"], given(language))
    wide = find("fast-beam").offline(["beam=30"], given(language))
    counts = [made.search(Scales(lm=1.0))(heard()).fallbacks for made in (narrow, wide)]
    assert counts[0] > 0 == counts[1]


@pytest.mark.parametrize("batches", [1, 2])
def test_tuning_counts_the_beams_that_it_widened(language: Language, batches: int) -> None:
    """As many as the searches with these weights count one by one, though each is done when a
    candidate is asked.
    """
    made = find("fast-beam").offline(["beam=0.01"], given(language))
    assert made.propose is not None
    expected = batches * sum(made.search(scales)(heard()).fallbacks for scales in made.grid)
    batch = _Batch(("a", "b"), (detokenise((1, 2)), detokenise((2,))), (1.0, 1.0))
    tuned = tune([batch] * batches, lambda _: heard(), made.propose, made.grid, detokenise)
    assert tuned.fallbacks == expected > 0
    axes = {"lm": (0.0, 1.0)}
    lists = tune_by_coordinates([batch], lambda _: heard(), made.propose, axes, detokenise)
    assert lists.fallbacks == made.search(Scales())(heard()).fallbacks


@pytest.mark.parametrize("method", BEAMS)
def test_an_n_gram_of_a_beam_is_tuned(method: str, language: Language) -> None:
    """What is proposed says at each scale what the search with that scale says."""
    made = find(method).offline([], given(language))
    assert made.propose is not None
    candidates = made.propose(heard()).candidates
    for scales in made.grid:
        found = made.search(scales)(heard())
        assert [item.best(scales) for item in candidates] == list(found.paths)
        assert [item.ranked(scales) for item in candidates] == list(found.nbest or [(), ()])
    said = {tuple(item.best(scales).tokens for item in candidates) for scales in made.grid}
    assert len(said) > 1
    assert find(method).offline([], given(Language())).propose is None


@pytest.mark.parametrize(
    ("method", "option"), [(BEAMS[0], "recombine=text"), (BEAMS[1], "beam=30")]
)
def test_the_beam_of_a_transducer_lists_texts(method: str, option: str, language: Language) -> None:
    """With scores that add up to the rank, and with those of an n-gram if it has one."""
    for known, scales in ((Language(), Scales()), (language, Scales(lm=1.0))):
        found = find(method).offline([option], given(known)).search(scales)(heard())
        assert all(len(texts) > 1 for texts in found.nbest)
        for path, texts in zip(found.paths, found.nbest):
            totals = [scales.total(text) for text in texts]
            assert totals == sorted(totals, reverse=True)
            assert texts[0].tokens == path.tokens
            assert totals[0] == pytest.approx(path.score)
            for text in texts:
                assert text.scores.keys() == {"transducer", *(["lm"] if known.lm else [])}
                if known.lm is not None:
                    assert text.scores["lm"] == pytest.approx(text_score(known.lm, text.tokens))


@pytest.mark.parametrize("method", BEAMS)
def test_the_oracle_of_a_beams_list_is_no_worse_than_its_best(method: str) -> None:
    """It finds the references, which end otherwise; it needs the transducer and no CTC."""
    options = [f"list={method}"]
    assert find("nbest-oracle").of(options).heads == ("transducer",)
    made = find("nbest-oracle").offline(options, given(Language()))
    alone = heard()._replace(frames={"transducer": heard().frames["transducer"]})
    paths = made.search(Scales())(alone).paths
    assert [detokenise(path.tokens) for path in paths] == list(alone.texts)
    best = find(method).offline([], given(Language())).search(Scales())(alone).paths
    assert [path.tokens for path in best] != [path.tokens for path in paths]
    assert all(len(path.frames) == len(path.tokens) for path in paths)


def test_weights_of_a_head_are_asked_for_by_its_name(language: Language) -> None:
    """Without a model there are none; what needs none builds all the same."""
    bare = Ingredients(language, detokenise, V)
    for method in METHODS:
        if find(method).heads[0] == "transducer":
            with pytest.raises(ValueError, match="needs the weights of the transducer head, but h"):
                find(method).offline([], bare)
        else:
            find(method).offline([], bare)
