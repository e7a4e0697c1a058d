"""Greedy search of a transducer: the best outcome at each frame. Whole utterances and streams.

Label looping: as long as nothing is said, the frames that follow have the same context, so several
of them are scored in one product for every stream, whatever its place; each turn leads every stream
to its next token or to the end of the window.

N streams, S encoder frames, K tokens of context, D channels of the joiner, W frames of a window.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dualasr_lib.core.trace import Trace, emitted, extended
from dualasr_lib.core.tree import split, stack
from dualasr_lib.decoding.greedy import GreedyStep
from dualasr_lib.decoding.hypothesis import TokenPath
from dualasr_lib.decoding.transducer.joiner import BLANK, BLOCK, Joiner, next_frames
from dualasr_lib.decoding.transducer.options import GreedyConfig

__all__ = ["GreedyStream", "TransducerGreedy"]

_FRAMES = 3
"""Frames of a window that pay: half of the frames after a token are scored for nothing."""


class _Places(NamedTuple):
    """Where N streams stand."""

    context: Tensor
    """(N, K) last tokens."""
    score: Tensor
    """(N,) float64."""


class GreedyStream(NamedTuple):
    """One stream between two calls."""

    places: _Places
    """Of one stream."""
    trace: Trace | None
    """What it has emitted."""
    num_frames: int

    @property
    def path(self) -> TokenPath:
        """The path from the start of the stream; time grows with its length."""
        return TokenPath(*emitted(self.trace), float(self.places.score))


class TransducerGreedy:
    """Streams that join and leave at any time; any chunks give the same to the bit.

    Args:
        tables: of the head (`joiner.JoinerTables` by name).
    """

    def __init__(self, tables: Mapping[str, Tensor], config: GreedyConfig) -> None:
        self._joiner = Joiner(tables, config)
        self._max_symbols = config.max_symbols

    def open(self) -> GreedyStream:
        """A new stream."""
        places = _Places(self._joiner.start(1), torch.zeros(1, dtype=torch.float64))
        return GreedyStream(places, None, 0)

    @torch.no_grad()
    def step(
        self,
        frames: Sequence[Tensor],
        states: Sequence[GreedyStream],
        kept: Sequence[Tensor] | None = None,
    ) -> list[GreedyStep[GreedyStream]]:
        """Feeds each of some streams its next frames: per stream (S_i, D), S_i >= 0.

        Args:
            kept: per stream (S_i,) bool, the frames that are searched; None: all.

        Raises:
            ValueError: a count or a width that does not fit, or frames that are not finite.
        """
        if not frames and not states:
            return []
        begun = [state.num_frames for state in states]
        padded, lens, times = next_frames(frames, begun, self._joiner.dim, kept)
        places, said = self._run(padded, lens, stack([state.places for state in states]))
        traces = [state.trace for state in states]
        for stream, token, frame in zip(*(x.tolist() for x in said)):
            traces[stream] = extended(traces[stream], token, times[stream][frame])
        return [
            GreedyStep(GreedyStream(place, trace, state.num_frames + len(rows)))
            for place, trace, state, rows in zip(split(places), traces, states, frames)
        ]

    def finish(self, state: GreedyStream) -> TokenPath:
        """Final path of a stream."""
        return state.path

    def _run(self, frames: Tensor, lens: Tensor, places: _Places) -> tuple[_Places, Tensor]:
        """Frames (N, S, D) of lens (N,) -> places after them, and (3, tokens): stream, token and
        frame of each, in order of time.
        """
        context, score = places.context.clone(), places.score.clone()
        texts = self._joiner.texts(context)
        time, count = torch.zeros_like(lens), torch.zeros_like(lens)
        said = [torch.zeros(3, 0, dtype=torch.int64)]
        while len(active := (time < lens).nonzero()[:, 0]):
            left = lens[active] - time[active]
            steps = torch.arange(min(_window(len(active)), int(left.max())))
            ahead = (time[active, None] + steps).clamp(max=frames.shape[1] - 1)
            token, logp = self._best(frames[active[:, None], ahead], texts[active])
            inside = steps < left[:, None]
            talks = (token != BLANK) & inside
            first = torch.where(talks.any(dim=1), talks.int().argmax(dim=1), len(steps))
            logp = logp.masked_fill(~(inside & (steps <= first[:, None])), 0.0)
            score[active] = torch.cat([score[active, None], logp], dim=1).cumsum(dim=1)[:, -1]
            ends = first < len(steps)
            stays = ends & ((count[active] * (first == 0)) + 1 < self._max_symbols)
            count[active] = torch.where(stays, count[active] * (first == 0) + 1, 0)
            passed = torch.where(ends, first + (~stays).long(), first)
            moved = torch.minimum(passed, left)
            stream, at = active[ends], first[ends]
            new = token[ends, at]
            said.append(torch.stack([stream, new, time[stream] + at]))
            time[active] += moved
            context[stream] = torch.cat([context[stream, 1:], new[:, None]], dim=1)
            texts[stream] = self._joiner.texts(context[stream])
        return _Places(context, score), torch.cat(said, dim=1)

    def _best(self, frames: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (N, W, D), texts (N, D) -> the best outcome (N, W) and its log-prob, float64."""
        wide = texts[:, None].expand_as(frames)
        logits, norm = self._joiner.outcomes(frames.flatten(0, 1), wide.flatten(0, 1))
        best, token = logits.max(dim=1)
        shape = frames.shape[:2]
        return token.view(shape), (best - norm).double().view(shape)


def _window(streams: int) -> int:
    """Frames of a window: whole blocks are filled, with at least `_FRAMES` for each stream."""
    blocks = -(-streams * _FRAMES // BLOCK)
    return max(1, blocks * BLOCK // streams)
