"""One talk from its plan: sentences, speech, pauses, the damage, and the true times of the words.

Times of words come from the synthesiser's state durations: exact to a frame of 5 ms; with neural
voices they are estimates. A segment
keeps 40 ms of silence before its first and after its last word.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from open_corpus import degrade
from open_corpus.degrade import RATE, Samples
from open_corpus.disfluency import CONNECTIVES, speak_freely
from open_corpus.grammar import same_sound
from open_corpus.hts import FRAME_SAMPLES, FRAME_SECONDS, Speech, Voice
from open_corpus.hts import SAMPLE_RATE as ENGINE_RATE
from open_corpus.layout import SdbRow, is_dialogue
from open_corpus.neural import NeuralVoice
from open_corpus.plan import BabbleClip, Plan, Talk, speakers
from open_corpus.prompts import Prompt, PromptSource, group_of
from open_corpus.speakers import Speaker, number, stretches
from open_corpus.words import Word, clauses, labels, num_moras, phone_counts

__all__ = ["RenderedTalk", "Studio", "WordTime", "render_babble", "render_talk"]

_MARGIN_FRAMES = 8
"""Silence kept at both ends of a segment: 40 ms."""
_SPEECH_LEVEL = 0.1
"""RMS of the active speech before the damage: -20 dB of full scale."""
_FLOOR_DB = -62.0
"""White noise under everything: digital silence would break log-mel statistics."""
_PEAK_DB = (-9.0, -3.0)
"""The peak of a channel, in dB of full scale, is drawn from this range."""


class WordTime(NamedTuple):
    """A word of a segment with its true time."""

    channel: str
    segment: int
    position: int
    text: str
    start: float
    """Seconds from the start of the talk."""
    end: float


class RenderedTalk(NamedTuple):
    """All that is written for one talk."""

    rows: list[SdbRow]
    words: list[WordTime]
    audio: dict[str, npt.NDArray[np.int16]]
    """Channel -> (n,) int16 at 16 kHz."""
    record: dict[str, Any]
    """What conditions.json and SOURCES.json tell about the talk."""


class Synthesiser(Protocol):
    """What is asked of `workshop.Engines`."""

    def voice(self, voice: Voice | NeuralVoice) -> None:
        """Speak as `voice` from now on."""

    def say(self, labels: Sequence[str], stretch: Sequence[float]) -> Speech:
        """Speak `labels` with phone durations multiplied by `stretch`."""


class Studio(NamedTuple):
    """What rendering needs besides the plan."""

    engine: Synthesiser
    prompts: PromptSource
    babble: Mapping[str, Sequence[Samples]]
    """Group -> clips, as (n,) float32 at 16 kHz."""


class _Unit(NamedTuple):
    """A spoken inter-pausal unit."""

    samples: Samples
    """(n,) float32 at 16 kHz, margins included."""
    edges: list[float]
    """Start of each word and end of the last one, seconds from the start of the samples."""


class _Take(NamedTuple):
    """A sentence ready to be spoken, and the ones that had to be refused before it."""

    prompt: Prompt
    units: list[list[Word]]
    refused: list[str]


def render_talk(talk: Talk, plan: Plan, studio: Studio) -> RenderedTalk:
    """The talk, a function of `plan` and `talk` alone."""
    rng = random.Random(f"{plan.seed}:talk:{talk.id}")
    people = speakers(plan, talk.id)
    rendered = RenderedTalk([], [], {}, {})
    pieces: dict[str, list[tuple[float, Samples]]] = {channel: [] for channel in people}
    takes: list[_Take] = []
    time, segment = round(rng.uniform(0.3, 1.0), 3), 0
    while time < talk.seconds or not all(pieces.values()):
        channel = _next_channel(pieces, rng)
        takes.append(_take(group_of(talk.split), plan, studio.prompts, rng))
        for words in takes[-1].units:
            segment += 1
            unit = _say(words, people[channel], plan, studio.engine, rng)
            end = round(time + len(unit.samples) / RATE, 3)
            _note(rendered, words, unit, (time, end), (channel, segment))
            pieces[channel].append((time, unit.samples))
            time = round(end + _pause(plan, rng), 3)
        time = round(time + rng.uniform(0, plan.pauses.between_sentences), 3)
    num_samples = round((time + 0.3) * RATE)
    damages = {}
    for channel, spoken in pieces.items():
        damage, audio = _channel_audio(spoken, num_samples, talk, channel, plan, studio)
        rendered.audio[channel], damages[channel] = audio, damage
    rendered.record.update(_record(talk, rendered, takes, people, damages))
    return rendered


def render_babble(clip: BabbleClip, plan: Plan, studio: Studio) -> Samples:
    """A clip of a talker for the babble: (n,) float32 at 16 kHz."""
    rng = random.Random(f"{plan.seed}:babble:{clip.id}")
    speaker = speakers(plan, clip.id)["L"]
    spoken: list[Samples] = []
    while sum(map(len, spoken)) < plan.babble_seconds * RATE:
        for words in _take(clip.group, plan, studio.prompts, rng).units:
            spoken.append(_say(words, speaker, plan, studio.engine, rng).samples)
    return np.concatenate(spoken)


def _take(group: str, plan: Plan, prompts: PromptSource, rng: random.Random) -> _Take:
    """The next sentence that can be read as intended and written."""
    refused: list[str] = []
    while True:
        prompt = prompts.draw(group, rng)
        with_connective = rng.random() < plan.disfluency.connective
        opening = rng.choice(CONNECTIVES) + "、" if with_connective else ""
        quiet_rng = random.Random(rng.getrandbits(64))
        units = speak_freely(opening + prompt.text, plan.disfluency, prompts.allowed, quiet_rng)
        if units is not None and _read_as_intended(prompt):
            return _Take(prompt, units, refused)
        refused.append(prompt.source)


def _read_as_intended(prompt: Prompt) -> bool:
    """Whether Open JTalk's reading is the prompt's."""
    if not prompt.reading:
        return True
    said = "".join(node["pron"] for clause in clauses(prompt.text) or [] for node in clause)
    return same_sound(said) == same_sound(prompt.reading)


def _say(
    words: Sequence[Word], speaker: Speaker, plan: Plan, engine: Synthesiser, rng: random.Random
) -> _Unit:
    # A second to import, and only workers need it.
    from scipy.signal import resample_poly

    texts = labels(words)
    engine.voice(speaker.voice)
    speech = engine.say(texts, stretches(texts, speaker.rate, plan.variety, rng))
    frames = speech.phone_frames
    before = min(_MARGIN_FRAMES, int(frames[0]))
    after = min(_MARGIN_FRAMES, int(frames[-1]))
    first = (int(frames[0]) - before) * FRAME_SAMPLES
    last = len(speech.samples) - (int(frames[-1]) - after) * FRAME_SAMPLES
    samples = resample_poly(speech.samples[first:last], RATE, ENGINE_RATE).astype(np.float32)
    phone_edges = np.concatenate([[0], np.cumsum(frames[1:-1])])
    word_edges = phone_edges[np.cumsum([0, *phone_counts(words)])]
    return _Unit(samples, [round((before + int(x)) * FRAME_SECONDS, 3) for x in word_edges])


def _note(
    rendered: RenderedTalk,
    words: Sequence[Word],
    unit: _Unit,
    times: tuple[float, float],
    place: tuple[str, int],
) -> None:
    """Write down a unit's words with their segment and their own times."""
    (start, end), (channel, segment) = times, place
    for position, word in enumerate(words, start=1):
        rendered.rows.append(SdbRow(segment, start, end, channel, position, word))
        edges = [round(start + x, 3) for x in unit.edges[position - 1 : position + 1]]
        rendered.words.append(WordTime(channel, segment, position, word.text, *edges))


def _next_channel(pieces: Mapping[str, list[Any]], rng: random.Random) -> str:
    """Who speaks next; R answers the first sentence (a silent channel breaks lhotse)."""
    if "R" not in pieces or not pieces["L"]:
        return "L"
    return "R" if not pieces["R"] or rng.random() < 0.4 else "L"


def _pause(plan: Plan, rng: random.Random) -> float:
    pauses = plan.pauses
    drawn = rng.lognormvariate(pauses.log_mean, pauses.log_spread)
    return min(pauses.longest, max(pauses.shortest, drawn))


def _channel_audio(
    spoken: Sequence[tuple[float, Samples]],
    num_samples: int,
    talk: Talk,
    channel: str,
    plan: Plan,
    studio: Studio,
) -> tuple[degrade.Degradation, npt.NDArray[np.int16]]:
    """The channel's damage and its (num_samples,) int16 audio."""
    rng = np.random.default_rng(number(f"{plan.seed}:damage:{talk.id}:{channel}"))
    samples = np.zeros(num_samples, np.float32)
    for start, piece in spoken:
        first = round(start * RATE)
        samples[first : first + len(piece)] += piece
    samples *= np.float32(_SPEECH_LEVEL / degrade.speech_rms(samples))
    choice = plan.conditions.get(talk.split, (degrade.CLEAN,))
    weights = np.array([condition.weight for condition in choice])
    condition = choice[rng.choice(len(choice), p=weights / weights.sum())]
    damage = condition.draw(rng)
    samples = degrade.apply(samples, damage, studio.babble.get(group_of(talk.split), ()), rng)
    peak = 10 ** (rng.uniform(*_PEAK_DB) / 20) / np.abs(samples).max()
    floor = rng.normal(0, 10 ** (_FLOOR_DB / 20), num_samples)
    pcm = np.clip(samples * peak + floor, -1, 1) * 32767
    return damage, np.round(pcm).astype("<i2")


def _record(
    talk: Talk,
    rendered: RenderedTalk,
    takes: Sequence[_Take],
    people: Mapping[str, Speaker],
    damages: Mapping[str, degrade.Degradation],
) -> dict[str, Any]:
    seconds = max(map(len, rendered.audio.values())) / RATE
    spoken = {row.segment: row.end - row.start for row in rendered.rows}
    return {
        "id": talk.id,
        "split": talk.split,
        "volume": talk.volume,
        "seconds": round(seconds * (2 if is_dialogue(talk.id) else 1), 3),
        "speech_seconds": round(sum(spoken.values()), 3),
        "segments": len(spoken),
        "words": len(rendered.rows),
        "characters": sum(len(row.word.text) for row in rendered.rows),
        "moras": sum(num_moras(row.word.node["pron"]) for row in rendered.rows),
        "conditions": {channel: damage._asdict() for channel, damage in damages.items()},
        "speakers": {
            channel: {"female": x.female, "rate": x.rate, **x.voice._asdict()}
            for channel, x in people.items()
        },
        "sources": [take.prompt.source for take in takes],
        "refused": [source for take in takes for source in take.refused],
    }
