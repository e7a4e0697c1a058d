"""Confidence of tokens: from the CTC posteriors of the branch that wrote the text, whatever search
chose it. Wraps any search, of whole utterances or of streams, whose paths then carry it.

A token's posterior is the highest that CTC gives it from the frame at which it is emitted up to the
frame of the next token; where an attention decoder or a language model has chosen against CTC, that
is low. Of each frame only the likeliest tokens are kept, a few bytes: what is not among them counts
as the least of them. In a stream the posterior of the last token may still rise while it is being
said; then it is final. Branches without a CTC head have no confidence.

S encoder frames, V vocabulary, K tokens kept of a frame, U tokens of a path.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dualasr_lib.core.arrays import Array, as_numpy
from dualasr_lib.decoding.contract import Frames, OnlineSearch, OnlineStep, TimedText, listed
from dualasr_lib.decoding.hypothesis import PathLike, TokenPath
from dualasr_lib.decoding.offline import Heard, OfflineSearch, Searched
from dualasr_lib.metrics.calibration import Calibration

__all__ = [
    "ConfidentSearch",
    "Evidence",
    "confident",
    "evidence",
    "token_posteriors",
    "with_confidence",
]

_HEAD = "ctc"
_KEPT = 8


class Evidence(NamedTuple):
    """The likeliest tokens of some frames."""

    tokens: npt.NDArray[np.int64]
    """(S, K)."""
    posteriors: npt.NDArray[np.float32]
    """(S, K) in falling order."""

    def then(self, more: "Evidence") -> "Evidence":
        """These frames, then `more`."""
        return Evidence(
            np.concatenate([self.tokens, more.tokens]),
            np.concatenate([self.posteriors, more.posteriors]),
        )


def evidence(log_probs: Array) -> Evidence:
    """Of log_probs (S, V), S >= 0."""
    said, kept = as_numpy(log_probs), min(_KEPT, log_probs.shape[1])
    likeliest = np.argpartition(said, -kept, axis=1)[:, -kept:]
    order = np.argsort(-np.take_along_axis(said, likeliest, axis=1), axis=1, kind="stable")
    tokens = np.take_along_axis(likeliest, order, axis=1)
    values = np.take_along_axis(said, tokens, axis=1).astype(np.float32)
    return Evidence(tokens, np.exp(values))


def token_posteriors(
    heard: Evidence, tokens: Sequence[int], frames: Sequence[int]
) -> tuple[float, ...]:
    """Posterior of each token (U,) that is emitted at frames (U,), which do not fall; several
    tokens of a transducer may share one.

    Raises:
        ValueError: frames that fall, or that were not heard.
    """
    if not tokens:
        return ()
    starts = np.asarray(frames, dtype=np.int64)
    if (np.diff(starts, prepend=0) < 0).any() or starts[-1] >= len(heard.tokens):
        raise ValueError(
            f"frames of tokens must not fall and lie within 0..{len(heard.tokens) - 1}, but are "
            f"{tuple(frames)}"
        )
    ends = np.maximum(np.append(starts[1:], len(heard.tokens)), starts + 1)
    lengths = ends - starts
    firsts = lengths.cumsum() - lengths  # where the frames of each token begin among all of them
    rows = np.arange(lengths.sum()) + np.repeat(starts - firsts, lengths)
    said = heard.tokens[rows] == np.repeat(np.asarray(tokens, dtype=np.int64), lengths)[:, None]
    kept = heard.posteriors[rows]  # (S', K)
    values = np.where(said.any(axis=1), (kept * said).sum(axis=1), kept[:, -1])
    return tuple(np.maximum.reduceat(values, firsts).tolist())


def with_confidence(path: PathLike, heard: Evidence, calibration: Calibration | None) -> TokenPath:
    """The path with posterior and confidence of each token; uncalibrated these are the same."""
    posteriors = token_posteriors(heard, path.tokens, path.frames)
    confidences = posteriors if calibration is None else calibration.confidences(posteriors)
    return TokenPath(path.tokens, path.frames, path.score, posteriors, confidences)


def confident(search: OfflineSearch, calibration: Calibration | None = None) -> OfflineSearch:
    """`search`, with confidence in its paths."""

    def searched(heard: Heard) -> Searched:
        found = search(heard)
        if _HEAD not in heard.frames:
            return found
        rows = zip(found.paths, heard.log_probs, heard.lens.tolist())
        paths = [
            with_confidence(path, evidence(said[:size]), calibration) for path, said, size in rows
        ]
        return found._replace(paths=paths)

    return searched


class _Heard(NamedTuple):
    """A stream between two calls."""

    search: Any
    """State of the search inside."""
    evidence: Evidence | None
    """Of all its frames; None before the first."""


class _Step(NamedTuple):
    inside: OnlineStep
    state: _Heard
    calibration: Calibration | None

    @property
    def partial(self) -> PathLike:
        return _known(self.inside.partial, self.state, self.calibration)

    @property
    def num_committed(self) -> int:
        return self.inside.num_committed


class ConfidentSearch:
    """An online search, with confidence in its paths: a `contract.OnlineSearch`."""

    def __init__(self, search: OnlineSearch, calibration: Calibration | None = None) -> None:
        self.search, self._calibration = search, calibration

    def open(self) -> _Heard:
        """State of a new stream."""
        return _Heard(self.search.open(), None)

    def step(self, frames: Sequence[Frames], states: Sequence[_Heard]) -> Sequence[OnlineStep]:
        """Feeds each of some streams its next frames; errors are those of the search inside."""
        steps = self.search.step(frames, [state.search for state in states])
        known = [_extended(state.evidence, said) for state, said in zip(states, frames)]
        return [
            _Step(step, _Heard(step.state, each), self._calibration)
            for step, each in zip(steps, known)
        ]

    def finish(self, state: _Heard) -> PathLike:
        """Final path of a stream."""
        return _known(self.search.finish(state.search), state, self._calibration)

    def ranked(self, state: _Heard) -> Sequence[TimedText]:
        """Texts of a stream that is over, if the search inside lists any."""
        return listed(self.search, state.search)


def _extended(before: Evidence | None, frames: Frames) -> Evidence | None:
    if _HEAD not in frames:
        return before
    new = evidence(frames[_HEAD])
    return new if before is None else before.then(new)


def _known(path: PathLike, state: _Heard, calibration: Calibration | None) -> PathLike:
    if state.evidence is None:
        return path
    return with_confidence(path, state.evidence, calibration)
