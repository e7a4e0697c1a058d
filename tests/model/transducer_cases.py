"""Batches for the transducer's tests: repeats, empty texts, one frame, none, more tokens than
frames.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from dualasr_lib.model.transducer.additive import Affine, Text
from dualasr_lib.model.transducer.loss import AS_IT_COMES, Early, View

__all__ = ["Batch", "cut", "draw_batch", "leaves", "view_of"]

_LENS = (9, 4, 7, 1, 0, 3, 6, 0, 1)
_TOKEN_LENS = (4, 0, 6, 3, 0, 5, 6, 2, 1)


class Batch(NamedTuple):
    """Leaves of a branch and its texts."""

    h: Tensor
    """(N, T, C)."""
    p: Tensor
    """(N, W, P)."""
    encoder: Tensor
    """(N, T, D)."""
    prediction: Tensor
    """(N, W, D)."""
    weights: tuple[Tensor, ...]
    """Weight and bias of the simple joiner's halves and of the output."""
    text: Text


def draw_batch(seed: int, spread: float = 1.0, dtype: torch.dtype = torch.float64) -> Batch:
    """Nine utterances of up to 9 frames and 6 tokens of a vocabulary of 7."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    tokens = torch.randint(1, 7, (9, 6), generator=generator)
    tokens[0] = tokens[0, 0]  # repeats
    weights = (normal(7, 4), normal(7), normal(7, 5), normal(7), spread * normal(7, 6), normal(7))
    text = Text(tokens, torch.tensor(_LENS), torch.tensor(_TOKEN_LENS))
    return Batch(normal(9, 9, 4), normal(9, 7, 5), normal(9, 9, 6), normal(9, 7, 6), weights, text)


def leaves(batch: Batch) -> list[Tensor]:
    """All that may have a gradient, made to want one."""
    found = [batch.h, batch.p, batch.encoder, batch.prediction, *batch.weights]
    return [x.requires_grad_() for x in found]


def view_of(batch: Batch, early: Early = AS_IT_COMES) -> View:
    """The batch as the loss sees it."""
    w = batch.weights
    return View(
        acoustic=Affine(batch.h, w[0], w[1]),
        language=Affine(batch.p, w[2], w[3]),
        encoder=batch.encoder,
        prediction=batch.prediction,
        output=(w[4], w[5]),
        early=early,
    )


def cut(batch: Batch, rows: Tensor) -> Batch:
    """The utterances `rows`, without padding that they do not need."""
    text = Text(*(x[rows] for x in batch.text))
    frames, texts = int(text.lens.max()), int(text.token_lens.max()) + 1
    return Batch(
        batch.h[rows, :frames].detach().clone(),
        batch.p[rows, :texts].detach().clone(),
        batch.encoder[rows, :frames].detach().clone(),
        batch.prediction[rows, :texts].detach().clone(),
        tuple(w.detach().clone() for w in batch.weights),
        text._replace(tokens=text.tokens[:, : texts - 1]),
    )
