"""The joiner of a transducer as searches use it: frames and contexts -> scores of what comes next.

The prediction network is stateless, so that a context is a sum of rows of small tables
(`model.transducer.network.PredictionNetwork.fold`). Two rows of a matrix product differ in their
last bits with the number of rows, so all products are made in blocks of `BLOCK` rows, padded: the
scores of a frame and a context depend on nothing else, and chunks, company and order change no bit.

M rows, K tokens of context, P channels of the prediction network, D of the joiner, V vocabulary
(blank 0).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dualasr_lib.decoding.transducer.options import OutcomeConfig

__all__ = [
    "BLANK",
    "BLOCK",
    "Joiner",
    "JoinerTables",
    "NextFrames",
    "Outcomes",
    "check_frames",
    "next_frames",
]

BLANK = 0
BLOCK = 12
"""Rows of a product: as fast per row as more, on one core and with 512 x 3266 weights."""


class JoinerTables(NamedTuple):
    """What a transducer head gives to searches (`model.heads.contract.Head.tables`)."""

    contexts: Tensor
    """(K, V, P): the ReLU of the sum over k of contexts[k, token k] is a context's state."""
    prediction: Tensor
    """(D, P)."""
    prediction_bias: Tensor
    """(D,)."""
    output: Tensor
    """(V, D)."""
    output_bias: Tensor
    """(V,)."""


class Outcomes(NamedTuple):
    """Scores of what may come next."""

    logits: Tensor
    """(M, V), penalty and temperature applied."""
    norm: Tensor
    """(M,); logits - norm are natural log-probabilities."""


class Joiner:
    """The joiner with its weights laid out for products of few rows."""

    def __init__(self, tables: Mapping[str, Tensor], config: OutcomeConfig) -> None:
        given = JoinerTables(**{name: x.detach().float().cpu() for name, x in tables.items()})
        self.context, self.vocab_size = given.contexts.shape[:2]
        self._config = config
        self._contexts = given.contexts
        self._positions = torch.arange(self.context)
        self._prediction = given.prediction.t().contiguous(), given.prediction_bias
        self._output = given.output.t().contiguous(), given.output_bias
        self.dim = len(given.prediction_bias)

    def texts(self, contexts: Tensor) -> Tensor:
        """Contexts (M, K), the latest token last -> the joiner's part of each (M, D)."""
        state = self._contexts[self._positions, contexts].sum(dim=1).relu()
        return _product(_padded(state), *self._prediction)[: len(contexts)]

    def outcomes(self, frames: Tensor, texts: Tensor) -> Outcomes:
        """Frames and texts, each (M, D)."""
        rows = len(frames)
        logits = _product(torch.tanh(_padded(frames + texts)), *self._output)
        if self._config.blank_penalty:
            logits[:, BLANK] -= self._config.blank_penalty
        if self._config.temperature != 1.0:
            logits /= self._config.temperature
        # (1, V) would be summed otherwise than more rows are, by several threads
        norm = logits[: max(2, rows)].logsumexp(dim=1)
        return Outcomes(logits[:rows], norm[:rows])


def check_frames(frames: Tensor, dim: int, first_frame: int = 0) -> None:
    """ValueError unless frames (S, D) are those of a joiner of D channels, and finite."""
    if frames.ndim != 2 or frames.shape[1] != dim:
        raise ValueError(
            f"frames of this transducer must be (frames, {dim}), but are {tuple(frames.shape)}"
        )
    bad = (~frames.isfinite().all(dim=1)).nonzero()
    if len(bad):
        raise ValueError(
            "what a transducer hears must be finite at each frame, "
            f"but frame {first_frame + int(bad[0])} has NaN or infinity"
        )


class NextFrames(NamedTuple):
    """Next frames of N streams."""

    frames: Tensor
    """(N, S, D), padded with 0."""
    lens: Tensor
    """(N,) int64."""
    times: list[list[int]]
    """Per stream the number of each of them in the stream."""


def next_frames(
    frames: Sequence[Tensor],
    begun: Sequence[int],
    dim: int,
    kept: Sequence[Tensor] | None = None,
) -> NextFrames:
    """Next frames of one stream or more, each (S_i, D), behind the `begun` ones of each.

    Args:
        kept: per stream (S_i,) bool, the frames that are searched; None: all.

    Raises:
        ValueError: a count or a width that does not fit, or frames that are not finite.
    """
    if len(frames) != len(begun):
        raise ValueError(f"{len(frames)} streams have frames, but {len(begun)} a state")
    for rows, first in zip(frames, begun):
        check_frames(rows, dim, first)
    if kept is None:
        searched, times = list(frames), [list(range(len(rows))) for rows in frames]
    else:
        searched = [rows[own] for rows, own in zip(frames, kept)]
        times = [own.nonzero()[:, 0].tolist() for own in kept]
    return NextFrames(
        pad_sequence(searched, batch_first=True),
        torch.tensor([len(rows) for rows in searched]),
        [[first + frame for frame in own] for first, own in zip(begun, times)],
    )


def _padded(x: Tensor) -> Tensor:
    """(M, D) with rows of zeros up to a multiple of the block."""
    missing = -len(x) % BLOCK
    return F.pad(x, (0, 0, 0, missing)) if missing else x.contiguous()


def _product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x @ weight + bias, block by block; x (M, D) of whole blocks, weight (D, V)."""
    found = x.new_empty(len(x), weight.shape[1])
    for start in range(0, len(x), BLOCK):
        block = slice(start, start + BLOCK)
        torch.addmm(bias, x[block], weight, out=found[block])
    return found
