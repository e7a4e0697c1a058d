"""Plans: the talks that lhotse wants, speakers that nobody shares, prompts in one group only."""

import random
from dataclasses import replace

import pytest

pytest.importorskip("lhotse")

from open_corpus.hts import Voice
from open_corpus.layout import fixed_talks
from open_corpus.names import PRESET_NAMES
from open_corpus.plan import BabbleClip, babble_clips, check_speakers, speakers, talks
from open_corpus.presets import PRESETS, preset
from open_corpus.prompts import DemoPrompts, TatoebaPrompts, group_of, kanji_number

_TABLE = """1\t彼は２時に来た。\tHe came at two.\tx
2\t彼女は2時に来ました。\tHe came at two.\tx
3\t猫が好き。\t-\tx
4\tCDを買った。\tI bought a CD.\tx
5\t円周率は3.14です。\tPi is 3.14.\tx
6\t猫が好き！\tI like cats.\tx
7\t2013年に来た\tCame in 2013\tx
"""


def test_fixed_talks_are_those_of_the_recipe() -> None:
    csj = pytest.importorskip("lhotse.recipes.csj")
    found = fixed_talks()
    assert len(found) == 75
    assert {x for x, split in found.items() if split == "excluded"} == set(csj._A01M0056)
    assert {x for x, split in found.items() if split == "valid"} == set(csj._VALID)
    for index, names in enumerate(csj._EVAL, start=1):
        assert {x for x, split in found.items() if split == f"eval{index}"} == set(names)


def test_presets_are_those_that_help_lists() -> None:
    assert tuple(sorted(PRESETS)) == PRESET_NAMES


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_have_all_talks_in_both_volumes(name: str) -> None:
    plan = preset(name, seed=1)
    found = talks(plan)
    train = [talk for talk in found if talk.split == "train"]
    assert len(found) == 75 + plan.train_talks
    assert {talk.volume for talk in train} == {"core", "noncore"}
    assert any(talk.id.startswith("D") for talk in train)
    assert check_speakers(plan) >= len(found) + len(babble_clips(plan))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_speakers_lie_between_the_voices(name: str) -> None:
    """Some lay outside: the engine then had negative variances, and speech was unintelligible."""
    plan = preset(name, seed=1)
    ids = [part.id for part in (*talks(plan), *babble_clips(plan))]
    found = [speaker for key in ids for speaker in speakers(plan, key).values()]
    found = [speaker for speaker in found if isinstance(speaker.voice, Voice)]
    shares = [speaker.voice.weights[0] for speaker in found]
    assert all(speaker.voice.weights == (x, 1 - x) for speaker, x in zip(found, shares))
    assert all(0.45 <= x <= 1 if s.female else 0 <= x <= 0.45 for s, x in zip(found, shares))
    assert min(shares) < 0.02 and max(shares) > 0.98
    assert len(set(shares)) == len(shares)


def test_sizes_of_the_presets() -> None:
    hours = {name: sum(t.seconds for t in talks(preset(name, 1))) / 3600 for name in PRESETS}
    assert 1.0 <= hours["demo"] <= 1.5
    assert 1.5 <= hours["noisy"] <= 2
    assert 3 <= hours["noisy-long"] <= 4
    assert 1.0 <= hours["shipped"] <= 1.3
    assert 0.08 <= hours["quick"] <= 0.12, "a minute of computing"
    assert 5.5 <= hours["small"] <= 7
    assert hours["large"] >= 50


def test_the_long_evaluation_sets_are_new_to_the_training() -> None:
    """Speakers and sentences of what noisy-long evaluates are in no training or valid talk; the
    training talks are those of noisy."""
    plan = preset("noisy-long", 2)
    by_split: dict[str, set[object]] = {"train": set(), "valid": set(), "eval": set()}
    for talk in talks(plan):
        by_split[group_of(talk.split)] |= {s.voice for s in speakers(plan, talk.id).values()}
    assert all(len(voices) >= 10 for voices in by_split.values())
    assert not by_split["eval"] & (by_split["train"] | by_split["valid"])
    source = DemoPrompts()
    rng = random.Random(1)
    texts = {group: {source.draw(group, rng).text for _ in range(1500)} for group in by_split}
    assert not texts["eval"] & (texts["train"] | texts["valid"])
    assert len(texts["eval"]) > 1000  # enough different ones for a long set
    old = {talk for talk in talks(preset("noisy", 2)) if talk.split in ("train", "valid")}
    assert old == {talk for talk in talks(plan) if talk.split in ("train", "valid")}


def test_a_seed_decides_talks_and_speakers() -> None:
    one, same, other = preset("demo", 1), preset("demo", 1), preset("demo", 2)
    assert talks(one) == talks(same) != talks(other)
    assert speakers(one, "A01M0110") == speakers(same, "A01M0110")
    assert speakers(one, "A01M0110") != speakers(other, "A01M0110")


def test_a_larger_corpus_begins_alike() -> None:
    plan = preset("demo", 1)
    assert set(talks(plan)) < set(talks(replace(plan, train_talks=plan.train_talks + 4)))


def test_dialogues_have_two_speakers_and_the_id_says_the_sex() -> None:
    plan = preset("demo", 1)
    assert set(speakers(plan, "D03F0058")) == {"L", "R"}
    assert speakers(plan, "A03F0072")["L"].female
    assert not speakers(plan, "A01M0110")["L"].female
    assert speakers(plan, BabbleClip("eval", 0).id)["L"].female


def test_wrong_plans_are_refused() -> None:
    plan = preset("demo", 1)
    with pytest.raises(ValueError, match="`train_talks` must be at least 2, but is 1"):
        replace(plan, train_talks=1)
    with pytest.raises(ValueError, match="eval2"):
        replace(plan, seconds={**plan.seconds, "eval2": 0})
    with pytest.raises(ValueError, match="`text`"):
        replace(plan, text="news")
    with pytest.raises(ValueError, match="X99M0000"):
        talks(replace(plan, only=("X99M0000",)))
    with pytest.raises(ValueError, match="`preset`"):
        preset("huge", 1)


def test_demo_sentences_are_in_one_group() -> None:
    prompts = DemoPrompts()
    drawn = {
        group: {prompts.draw(group, rng).text for _ in range(150)}
        for group, rng in ((g, random.Random(1)) for g in ("train", "valid", "eval"))
    }
    assert not drawn["train"] & drawn["valid"]
    assert not drawn["train"] & drawn["eval"]
    assert not drawn["valid"] & drawn["eval"]
    assert group_of("excluded") == group_of("eval2") == "eval"


def test_tatoeba_keeps_paraphrases_together_and_drops_what_cannot_be_read() -> None:
    prompts = TatoebaPrompts.select(_TABLE, top_chars=0).prompts
    found = {p.source: (p.text, group) for group, rows in prompts.items() for p in rows}
    assert set(found) == {"1", "2", "3", "7"}  # no Latin letters, no decimals, no repetition
    assert found["1"][1] == found["2"][1]
    assert found["2"][0] == "彼女は二時に来ました。"
    assert found["7"][0] == "二千十三年に来た"


def test_tatoeba_with_few_characters() -> None:
    prompts = TatoebaPrompts.select(_TABLE, top_chars=9, extra=frozenset("え"))
    assert len(prompts.allowed) == 9
    assert "え" in prompts.allowed
    again = TatoebaPrompts.from_dict(prompts.as_dict())
    assert again.allowed == prompts.allowed
    assert again.prompts == prompts.prompts


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (1, "一"),
        (10, "十"),
        (24, "二十四"),
        (110, "百十"),
        (2013, "二千十三"),
        (35_000, "三万五千"),
    ],
)
def test_kanji_number(value: int, written: str) -> None:
    assert kanji_number(value) == written
