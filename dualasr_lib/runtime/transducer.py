"""Greedy search of a transducer without torch: `decoding.transducer.greedy` with its usual options,
on numpy's arrays.

S encoder frames, K tokens of context, P channels of the prediction network, D of the joiner, V
vocabulary (blank 0).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dualasr_lib.core.trace import Trace, emitted, extended
from dualasr_lib.decoding.greedy import GreedyStep
from dualasr_lib.decoding.hypothesis import TokenPath
from dualasr_lib.decoding.offline import Heard, Searched

__all__ = ["TransducerGreedy"]

_BLANK = 0
_FRAMES = 8
"""Frames that are scored together: as long as nothing is said, they have the same context."""

_Array = npt.NDArray[Any]


class _Stream(NamedTuple):
    """A stream between two calls."""

    context: tuple[int, ...]
    """The last K tokens."""
    trace: Trace | None
    score: float
    num_frames: int

    @property
    def path(self) -> TokenPath:
        """The path from the start of the stream."""
        return TokenPath(*emitted(self.trace), self.score)


class TransducerGreedy:
    """The best outcome at each frame; at most one token a frame, as published. Streams join and
    leave at any time: a `decoding.one_head.OneHeadSearch`, and `whole` an offline search.

    Args:
        tables: contexts (K, V, P), prediction (D, P), prediction_bias (D,), output (V, D),
            output_bias (V,).
    """

    def __init__(self, tables: Mapping[str, _Array]) -> None:
        self._contexts = tables["contexts"]
        self._prediction = np.ascontiguousarray(tables["prediction"].T), tables["prediction_bias"]
        self._output = np.ascontiguousarray(tables["output"].T), tables["output_bias"]

    def open(self) -> _Stream:
        """A new stream."""
        return _Stream((_BLANK,) * len(self._contexts), None, 0.0, 0)

    def step(
        self, frames: Sequence[_Array], states: Sequence[_Stream]
    ) -> list[GreedyStep[_Stream]]:
        """Feeds each of some streams its next frames: per stream (S_i, D), S_i >= 0.

        Raises:
            ValueError: frames that are not finite.
        """
        return [GreedyStep(self._walked(*pair)) for pair in zip(frames, states)]

    def finish(self, state: _Stream) -> TokenPath:
        """Final path of a stream."""
        return state.path

    def whole(self, heard: Heard) -> Searched:
        """The same of whole utterances."""
        rows = heard.rows("transducer")
        return Searched([self._walked(each, self.open()).path for each in rows])

    def _walked(self, frames: _Array, state: _Stream) -> _Stream:
        if not np.isfinite(frames).all():
            raise ValueError("what a transducer hears must be finite, but has NaN or infinity")
        context, trace, score, time = state.context, state.trace, state.score, 0
        text = self._text(context)
        while time < len(frames):
            token, logp = self._best(frames[time : time + _FRAMES] + text)
            talks = np.flatnonzero(token != _BLANK)
            passed = int(talks[0]) + 1 if len(talks) else len(token)
            score += float(logp[:passed].sum())
            time += passed
            if len(talks):
                said = int(token[passed - 1])
                trace = extended(trace, said, state.num_frames + time - 1)
                context = (*context[1:], said)
                text = self._text(context)
        return _Stream(context, trace, score, state.num_frames + len(frames))

    def _text(self, context: tuple[int, ...]) -> _Array:
        """The joiner's part (D,) of a context."""
        rows = [table[token] for table, token in zip(self._contexts, context)]
        weight, bias = self._prediction
        found: _Array = np.maximum(np.sum(rows, axis=0), 0.0) @ weight + bias
        return found

    def _best(self, joined: _Array) -> tuple[_Array, _Array]:
        """Frames and text together (W, D) -> the best outcome (W,) and its log-prob, float64."""
        weight, bias = self._output
        logits = np.tanh(joined) @ weight + bias
        best = logits.max(axis=1)
        norm = np.log(np.exp((logits - best[:, None]).astype(np.float64)).sum(axis=1))
        return logits.argmax(axis=1), -norm
