"""What decoding yields: paths, hypotheses, and the partial texts that a stream has shown."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from dualasr_lib.metrics.latency import Shown, TimedWord

__all__ = ["Emission", "Hypothesis", "PathLike", "ScoredText", "TokenPath"]


class PathLike(Protocol):
    """Result of a search on one utterance (`lattice.path.Path`, `TokenPath`)."""

    @property
    def tokens(self) -> tuple[int, ...]:
        """Vocabulary ids, no blanks, repeats collapsed."""

    @property
    def frames(self) -> tuple[int, ...]:
        """Encoder frame, from the start of the utterance, at which each token is first emitted."""

    @property
    def score(self) -> float:
        """Natural log."""

    @property
    def posteriors(self) -> tuple[float, ...]:
        """Of each token, by CTC; empty where `confidence` has not looked."""

    @property
    def confidences(self) -> tuple[float, ...]:
        """Of each token, the calibrated posterior; likewise."""


class TokenPath(NamedTuple):
    """Tokens, when they were said, and their score: see `PathLike`."""

    tokens: tuple[int, ...]
    frames: tuple[int, ...]
    score: float
    posteriors: tuple[float, ...] = ()
    confidences: tuple[float, ...] = ()


class ScoredText(NamedTuple):
    """A text of an n-best list with each score that it has got."""

    tokens: tuple[int, ...]
    """Vocabulary ids."""
    scores: Mapping[str, float]
    """Natural log-probabilities, by the name of the head that gave them ("ctc": summed over
    alignments; "attention": the end included) and "lm" (language model, the end included)."""
    frames: tuple[int, ...] = ()
    """When its tokens were emitted, if the search that lists it knows; else empty."""

    def scored(self, name: str, score: float) -> "ScoredText":
        """The same text with one more score."""
        return self._replace(scores={**self.scores, name: score})


class Emission(NamedTuple):
    """A partial text of a stream, at the moment it changed."""

    text: str
    audio_seconds: float
    """Audio that had to be there for it, from the stream's start."""
    compute_seconds: float
    """Wall time of the step that produced it (all streams of the batch together)."""
    shown_seconds: float
    """When it appeared, on the clock of the run: audio time, or wall time since the stream's
    start.
    """

    @property
    def shown(self) -> Shown:
        """As the latency measurements want it."""
        return Shown(self.text, self.shown_seconds)


class Hypothesis(NamedTuple):
    """Final text of one utterance, and how it came about."""

    id: str
    text: str
    ref: str
    """Reference text."""
    path: PathLike
    """Tokens of `text`, their frames and their score."""
    duration: float
    """Audio, seconds."""
    words: tuple[TimedWord, ...] = ()
    """Reference words with their true times; empty if unknown."""
    emissions: tuple[Emission, ...] = ()
    """Texts of the first pass in order, the last one equal to `text` unless a second pass rewrote
    it; empty for offline decoding."""
    step_seconds: tuple[float, ...] = ()
    """Wall time of each step that this stream took part in."""
    finalise_seconds: float | None = None
    """Duration of the second pass, wall time; None without."""
    final_seconds: float | None = None
    """What a user waits for `text`: wall time from the end of the audio, with the last chunk, other
    streams, search and second pass. None unless audio came at its natural speed.
    """
    fallbacks: int = 0
    """Times that memory ran out in the second pass and less was searched; of offline decoding the
    batch has them (`Decoded`).
    """
    left_out: tuple[str, ...] = ()
    """Parts of the second pass that there was no time for."""
    nbest: tuple[ScoredText, ...] = ()
    """The texts among which this one was chosen, the best first; empty for other searches."""

    @property
    def first_pass_text(self) -> str:
        """What the first pass had shown in the end."""
        return self.emissions[-1].text if self.emissions else ""
