"""What a corpus consists of, as a value: its parameters, the list of talks, their speakers.

Everything random is drawn from (seed, talk id), never from the order of the work.
"""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from open_corpus.degrade import Condition
from open_corpus.disfluency import Disfluency
from open_corpus.layout import SPLITS, fixed_talks, is_dialogue
from open_corpus.prompts import group_of
from open_corpus.speakers import Speaker, Variety, draw_neural, draw_speaker

__all__ = [
    "BABBLE",
    "BabbleClip",
    "Pauses",
    "Plan",
    "Talk",
    "babble_clips",
    "check_speakers",
    "speakers",
    "talks",
]

_TRAIN_PREFIXES = ("A01", "A02", "A03", "A11", "S00", "S01", "S05", "S07")
_SPEAKERS_SHARED = "two speakers must never be the same, but those of {0} and {1} are"


@dataclass(frozen=True, kw_only=True)
class Pauses:
    """Silence between inter-pausal units: log-normal seconds, cut to a range."""

    log_mean: float = -0.8
    log_spread: float = 0.5
    shortest: float = 0.2
    """CSJ's definition of a pause."""
    longest: float = 2.5
    between_sentences: float = 0.5
    """Up to so much more after a sentence."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All parameters of a corpus; the same plan gives the same bytes."""

    preset: str
    """Its name."""
    seed: int
    """Of everything random."""
    text: str
    """`demo` (own grammar) or `tatoeba`."""
    top_chars: int = 0
    """Tatoeba only: keep sentences made of so many most frequent characters; 0 = all."""
    train_talks: int
    """Number of training talks; the other 75 are fixed by lhotse's recipe."""
    dialogue_every: int = 12
    """Every so-manieth training talk is a dialogue."""
    seconds: Mapping[str, float]
    """Least length of a talk of each split."""
    pauses: Pauses = field(default_factory=Pauses)
    variety: Variety = field(default_factory=Variety)
    disfluency: Disfluency = field(default_factory=Disfluency)
    conditions: Mapping[str, tuple[Condition, ...]] = field(default_factory=dict)
    """Choice of damage for each split; a split that is not named stays clean."""
    babble_clips: int = 12
    """Clips of other talkers for each group of sentences."""
    babble_seconds: float = 8.0
    """Least length of such a clip."""
    neural: Mapping[str, float] = field(default_factory=dict)
    """Share of the talks of each split that neural voices speak; in evaluation the held-out one."""
    only: tuple[str, ...] = ()
    """Make these talks only (for tests; such a corpus is not complete)."""

    def __post_init__(self) -> None:
        if self.text not in ("demo", "tatoeba"):
            raise ValueError(f"`text` must be demo or tatoeba, but is {self.text!r}")
        if self.train_talks < 2:
            raise ValueError(f"`train_talks` must be at least 2, but is {self.train_talks}")
        missing = [split for split in SPLITS if self.seconds.get(split, 0) <= 0]
        if missing:
            raise ValueError(f"`seconds` must be positive for every split, but lacks {missing}")
        wrong = {k: v for k, v in self.neural.items() if k not in SPLITS or not 0 <= v <= 1}
        if wrong:
            raise ValueError(f"`neural` must have shares in [0, 1] of splits, but has {wrong}")

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON; corpora without neural voices are what they always were."""
        plain = dataclasses.asdict(self)
        if not self.neural:
            del plain["neural"]
        return plain


BABBLE = "BAB"
"""How the keys of babble clips begin."""


class Talk(NamedTuple):
    """One recording (two channels if a dialogue)."""

    id: str
    split: str
    volume: str
    """core or noncore: the folder."""
    seconds: float


class BabbleClip(NamedTuple):
    """A clip of another talker, in no talk of the corpus."""

    group: str
    number: int

    @property
    def id(self) -> str:
        """Its key; the fourth letter says the sex, as in a talk's id."""
        return f"{BABBLE}{'FM'[self.number % 2]}-{self.group}-{self.number:03d}"


def talks(plan: Plan) -> list[Talk]:
    """All talks, in the order of their ids."""
    splits = fixed_talks() | dict.fromkeys(_train_ids(plan, set(fixed_talks())), "train")
    if unknown := set(plan.only) - set(splits):
        raise ValueError(f"`only` must name talks of the corpus, but has {sorted(unknown)}")
    order = {talk: index for index, talk in enumerate(splits)}
    return [
        Talk(talk, split, "core" if order[talk] % 5 == 0 else "noncore", plan.seconds[split])
        for talk, split in sorted(splits.items())
        if not plan.only or talk in plan.only
    ]


def speakers(plan: Plan, talk: str) -> dict[str, Speaker]:
    """The speaker of each channel: L, and R in a dialogue (of either sex)."""
    key = f"{plan.seed}:speaker:{talk}"
    if _is_neural(plan, talk):
        held_out = group_of(_split(talk)) == "eval"
        draw = functools.partial(draw_neural, variety=plan.variety, held_out=held_out)
    else:
        draw = functools.partial(draw_speaker, variety=plan.variety)
    result = {"L": draw(f"{key}:L", talk[3] == "F")}
    if is_dialogue(talk):
        female = random.Random(f"{key}:sex").random() < 0.5
        result["R"] = draw(f"{key}:R", female)
    return result


def babble_clips(plan: Plan) -> list[BabbleClip]:
    """The clips that the plan's conditions need, for each group of sentences in use."""
    groups = {
        group_of(talk.split)
        for talk in talks(plan)
        if any(c.babble_snr for c in plan.conditions.get(talk.split, ()))
    }
    return [BabbleClip(group, k) for group in sorted(groups) for k in range(plan.babble_clips)]


def check_speakers(plan: Plan) -> int:
    """The number of speakers, after proof that no two (babble included) have equal parameters.

    Raises RuntimeError otherwise.
    """
    owners: dict[object, str] = {}
    ids = [talk.id for talk in talks(plan)] + [clip.id for clip in babble_clips(plan)]
    for name in ids:
        for speaker in speakers(plan, name).values():
            if speaker.voice in owners:
                raise RuntimeError(_SPEAKERS_SHARED.format(owners[speaker.voice], name))
            owners[speaker.voice] = name
    return len(owners)


def _is_neural(plan: Plan, talk: str) -> bool:
    if not plan.neural or talk.startswith(BABBLE):
        return False
    return random.Random(f"{plan.seed}:neural:{talk}").random() < plan.neural.get(_split(talk), 0)


@functools.cache
def _splits() -> dict[str, str]:
    return fixed_talks()


def _split(talk: str) -> str:
    return _splits().get(talk, "train")


def _train_ids(plan: Plan, taken: set[str]) -> list[str]:
    """Ids in CSJ's shape; the same seed and a larger corpus begin alike."""
    rng = random.Random(f"{plan.seed}:ids")
    result: list[str] = []
    while len(result) < plan.train_talks:
        dialogue = len(result) % plan.dialogue_every == plan.dialogue_every - 1
        prefix = "D01" if dialogue else rng.choice(_TRAIN_PREFIXES)
        talk = f"{prefix}{rng.choice('MF')}{rng.randint(2000, 9999)}"
        if talk not in taken:
            taken.add(talk)
            result.append(talk)
    return result
