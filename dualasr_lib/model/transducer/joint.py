"""The joiner, cell by cell: logits = output(tanh(encoder[frame] + prediction[text])).

Kept for the backward pass is one number per cell; the logits are computed a second time then, and
only of cells whose gradient, which is the cell's occupancy, is worth it.

M cells, F frames and P texts of all utterances, D channels, V vocabulary (blank 0).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from dualasr_lib.model.pairing import at_least_float32
from dualasr_lib.model.transducer.blocks import blocks, full_precision, zeros

__all__ = ["Cells", "Outcomes", "joint_outcomes"]


class Cells(NamedTuple):
    """What the joiner is asked about, (M,) int64 each."""

    frames: Tensor
    """Row of the frame."""
    texts: Tensor
    """Row of the text that was said before."""
    tokens: Tensor
    """Token that the text goes on with; any id where it ends."""
    owners: Tensor
    """Utterance, rising."""


class Outcomes(NamedTuple):
    """Natural log-probabilities (M,), at least float32."""

    symbol: Tensor
    blank: Tensor


def joint_outcomes(
    encoder: Tensor,
    prediction: Tensor,
    output: tuple[Tensor, Tensor],
    cells: Cells,
    min_gradient: float = 1e-4,
) -> Outcomes:
    """Log-probabilities of each cell's token and of blank, computed in float32 (float64 from
    float64) inside autocast, too. Rows that no cell names are never read.

    Args:
        encoder: (F, D); prediction: (P, D).
        output: weight (V, D) and bias (V,).
        min_gradient: share of the largest gradient of an utterance's cells up to which the gradient
            of a cell counts as 0; below 0: none does.
    """
    return Outcomes(*_Joint.apply(encoder, prediction, *output, cells, min_gradient))


class _Joint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        *tensors, cells, min_gradient = inputs
        with full_precision(tensors[0]):
            encoder, prediction, weight, bias = map(at_least_float32, tensors)
            symbol, blank, norm = encoder.new_empty(3, len(cells.frames)).unbind(0)
            for block in blocks(len(norm), len(bias), norm.device):
                hidden = _hidden(encoder, prediction, cells, block)
                logits = torch.addmm(bias, hidden, weight.t())
                most = logits.amax(dim=1, keepdim=True)
                torch.sub(
                    logits.gather(1, cells.tokens[block, None])[:, 0], most[:, 0], out=symbol[block]
                )
                torch.sub(logits[:, 0], most[:, 0], out=blank[block])
                total = logits.sub_(most).exp_().sum(dim=1).log_()
                symbol[block] -= total
                blank[block] -= total
                torch.add(total, most[:, 0], out=norm[block])
        ctx.save_for_backward(*tensors, norm)
        ctx.cells, ctx.min_gradient = cells, min_gradient
        return symbol, blank

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, norm = ctx.saved_tensors
        kept = _kept(grads, ctx.cells.owners, ctx.min_gradient)
        cells = Cells(*(index[kept] for index in ctx.cells))
        dsymbol, dblank, norm = grads[0][kept], grads[1][kept], norm[kept]
        result = [zeros(x) for x in tensors]
        dencoder, dprediction, dweight, dbias = result
        with full_precision(tensors[0]):
            encoder, prediction, weight, bias = map(at_least_float32, tensors)
            for block in blocks(len(norm), len(bias), norm.device):
                hidden = _hidden(encoder, prediction, cells, block)
                dlogits = torch.addmm(bias, hidden, weight.t())
                dlogits.sub_(norm[block, None]).exp_().mul_(-(dsymbol + dblank)[block, None])
                dlogits.scatter_add_(1, cells.tokens[block, None], dsymbol[block, None])
                dlogits[:, 0] += dblank[block]
                dweight.addmm_(dlogits.t(), hidden)
                dbias += dlogits.sum(dim=0)
                dsum = (dlogits @ weight).mul_(1.0 - hidden.square_())
                dencoder.index_add_(0, cells.frames[block], dsum)
                dprediction.index_add_(0, cells.texts[block], dsum)
        return *(d.to(x.dtype) for d, x in zip(result, tensors)), None, None


def _hidden(encoder: Tensor, prediction: Tensor, cells: Cells, block: slice) -> Tensor:
    """(rows of the block, D)."""
    return encoder[cells.frames[block]].add_(prediction[cells.texts[block]]).tanh_()


def _kept(grads: tuple[Tensor, ...], owners: Tensor, min_gradient: float) -> Tensor:
    """Numbers of the cells whose gradient counts; NaN does."""
    size = grads[0].abs() + grads[1].abs()
    if not len(owners):
        return owners
    counts = torch.bincount(owners)
    first = counts.cumsum(0) - counts
    place = torch.arange(len(owners), device=owners.device) - first[owners]
    by_owner = size.new_zeros(len(counts), int(counts.max()))
    by_owner[owners, place] = size
    return (~(size <= min_gradient * by_owner.amax(dim=1)[owners])).nonzero()[:, 0]
