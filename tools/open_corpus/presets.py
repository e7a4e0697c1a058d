"""The presets of `make_open_corpus.py`: parameters of the corpora, and why they are what they are.

`small` and `large` use the damage with which context was found to matter most (README.md): local in
time, or moderate babble. `demo` is mild, so that an hour of speech is enough to learn from. `noisy`
has the speakers and sentences of `demo` in the noise of `small`, but in its mild rooms: what is
lost can still be guessed from what follows. Its valid and evaluation sets are twice as long;
`noisy-long` is `noisy` with some 50,000 characters of evaluation sets.
`shipped`, made with neural voices, is what the model that comes with the package goes on to learn
from after `demo`: the rooms and noise of both.
`quick` is just enough to try a trained model on: the evaluation sets of `demo`, shorter.

Each can have neural voices as well: in a fifth of the training talks, and in all of eval1 and
eval2 one that is heard nowhere else. They cost 1 CPU second per second of speech, the others 0.05.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from open_corpus.degrade import CLEAN, Condition
from open_corpus.disfluency import Disfluency
from open_corpus.plan import Pauses, Plan
from open_corpus.speakers import Variety

__all__ = ["PRESETS", "preset"]

_ROOM_BABBLE = Condition(name="reverb-babble15", t60=(0.3, 0.5), babble_snr=(15.0, 15.0))
_ROOM_GAPS = Condition(
    name="reverb-dropouts", t60=(0.5, 0.9), direct_to_reverberant=(-2.0, 2.0), dropout_rate=1.0
)
_BABBLE = Condition(name="babble", babble_snr=(5.0, 20.0))
_QUARTERS = (CLEAN, _ROOM_BABBLE, _ROOM_GAPS, _BABBLE)
_HARD = {
    **dict.fromkeys(("train", "valid", "excluded"), _QUARTERS),
    "eval1": (CLEAN,),
    "eval2": (_ROOM_BABBLE,),
    "eval3": (_ROOM_GAPS,),
}
_MILD_ROOM = Condition(
    name="mild-reverb-babble20",
    t60=(0.2, 0.35),
    direct_to_reverberant=(6.0, 10.0),
    babble_snr=(20.0, 20.0),
)
_MILD_GAPS = Condition(
    name="mild-reverb-dropouts",
    t60=(0.2, 0.35),
    direct_to_reverberant=(6.0, 10.0),
    dropout_rate=0.4,
)
_MILD_ROOM_BABBLE = dataclasses.replace(
    _MILD_ROOM, name="mild-reverb-babble15", babble_snr=(15.0, 15.0)
)
_MILD_ROOM_GAPS = dataclasses.replace(_MILD_GAPS, dropout_rate=1.0)
_NOISY_THIRDS = (CLEAN, _MILD_ROOM_BABBLE, _MILD_ROOM_GAPS)
_NOISY = {
    **dict.fromkeys(("train", "valid", "excluded"), _NOISY_THIRDS),
    "eval1": (CLEAN,),
    "eval2": (_MILD_ROOM_BABBLE,),
    "eval3": (_MILD_ROOM_GAPS,),
}
_MOSTLY_CLEAN = (
    dataclasses.replace(CLEAN, weight=2.0),
    _MILD_ROOM,
    _MILD_GAPS,
)
_MILD = {
    **dict.fromkeys(("train", "valid", "excluded"), _MOSTLY_CLEAN),
    "eval1": (CLEAN,),
    "eval2": (_MILD_ROOM,),
    "eval3": (_MILD_GAPS,),
}
_EVAL_SPLITS = ("eval1", "eval2", "eval3")

_DEMO: dict[str, Any] = {
    "text": "demo",
    "train_talks": 140,
    "dialogue_every": 28,
    "seconds": {
        "train": 24.0,
        "valid": 9.0,
        "excluded": 4.0,
        **dict.fromkeys(_EVAL_SPLITS, 32.0),
    },
    "pauses": Pauses(log_mean=-1.2, log_spread=0.3, longest=0.8, between_sentences=0.2),
    "variety": Variety(
        rate=1.12,
        rate_spread=0.06,
        shift=0.08,
        alpha=(0.53, 0.575),
        half_tone=2.0,
        utterance_jitter=0.05,
        phrase_jitter=0.08,
        phone_jitter=0.06,
    ),
    "disfluency": Disfluency(
        fillers=(
            ("えー", "エー", 6),
            ("えーと", "エート", 4),
            ("あの", "アノ", 4),
            ("まー", "マー", 3),
        ),
        filler=0.05,
        fragment=0.01,
        repeat=0.004,
        repair=0.006,
        lengthening=0.03,
        desune=0.0,
        connective=0.0,
        pause=0.04,
        min_moras=9,
        max_moras=40,
    ),
    "conditions": _MILD,
    "babble_clips": 6,
    "babble_seconds": 6.0,
}

_SHIPPED = {
    **dict.fromkeys(
        ("train", "valid", "excluded"),
        (CLEAN, _MILD_ROOM, _MILD_GAPS, _MILD_ROOM_BABBLE, _MILD_ROOM_GAPS),
    ),
    **{split: _NOISY[split] for split in _EVAL_SPLITS},
}

_NOISY_PRESET = {
    **_DEMO,
    "seconds": {**_DEMO["seconds"], "valid": 18.0, **dict.fromkeys(_EVAL_SPLITS, 64.0)},
    "conditions": _NOISY,
}

PRESETS: dict[str, dict[str, Any]] = {
    "demo": _DEMO,
    "shipped": {
        **_DEMO,
        "seconds": {**_DEMO["seconds"], **dict.fromkeys(_EVAL_SPLITS, 16.0)},
        "conditions": _SHIPPED,
    },
    "noisy": _NOISY_PRESET,
    "noisy-long": {
        **_NOISY_PRESET,
        "seconds": {**_NOISY_PRESET["seconds"], **dict.fromkeys(_EVAL_SPLITS, 272.0)},
    },
    "quick": {
        **_DEMO,
        "train_talks": 12,
        "dialogue_every": 12,
        "seconds": {
            **dict.fromkeys(("train", "valid", "excluded"), 3.0),
            **dict.fromkeys(_EVAL_SPLITS, 8.0),
        },
    },
    "small": {
        "text": "tatoeba",
        "top_chars": 500,
        "train_talks": 120,
        "seconds": {
            "train": 150.0,
            "valid": 40.0,
            "excluded": 20.0,
            **dict.fromkeys(_EVAL_SPLITS, 60.0),
        },
        "conditions": _HARD,
    },
    "large": {
        "text": "tatoeba",
        "train_talks": 750,
        "seconds": {
            "train": 240.0,
            "valid": 60.0,
            "excluded": 40.0,
            **dict.fromkeys(_EVAL_SPLITS, 120.0),
        },
        "conditions": _HARD,
        "babble_clips": 40,
    },
}


_NEURAL = {"train": 0.2, "eval1": 1.0, "eval2": 1.0}


def preset(name: str, seed: int, neural: bool = False) -> Plan:
    """The plan called `name` (one of `PRESETS`), with neural voices if wanted."""
    if name not in PRESETS:
        raise ValueError(f"`preset` must be one of {sorted(PRESETS)}, but is {name!r}")
    return Plan(preset=name, seed=seed, neural=_NEURAL if neural else {}, **PRESETS[name])
