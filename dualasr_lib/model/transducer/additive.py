"""The cheap joiner: its logits are the sum of one vector per frame and one per text.

Its N U T V logits are never written down: with a = exp(acoustic) and b = exp(language), each by the
maximum of its row, the sum over the vocabulary is the matrix product a b^T.

N utterances, T frames, U tokens, W = U + 1 texts begun, V vocabulary (blank 0), C channels of a
frame and P of a text.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dualasr_lib.model.pairing import at_least_float32
from dualasr_lib.model.transducer.blocks import blocks, full_precision, zeros
from dualasr_lib.model.transducer.recursion import Arcs

__all__ = ["Affine", "Text", "additive_arcs"]


class Affine(NamedTuple):
    """Logits that are not computed yet."""

    x: Tensor
    """(N, T, C) or (N, W, P)."""
    weight: Tensor
    """(V, C) or (V, P)."""
    bias: Tensor
    """(V,)."""


class Text(NamedTuple):
    """What is to be said, and how much of each utterance is valid."""

    tokens: Tensor
    """(N, U) ids; padded with anything."""
    lens: Tensor
    """(N,) frames."""
    token_lens: Tensor
    """(N,) tokens."""

    def each(self) -> Iterator[tuple[int, int, Tensor]]:
        """Utterance, its frames, its tokens (U_n,); without those that have no frame."""
        sizes = zip(self.lens.tolist(), self.token_lens.tolist())
        for number, (frames, tokens) in enumerate(sizes):
            if frames:
                yield number, frames, self.tokens[number, :tokens]


def additive_arcs(
    acoustic: Affine, language: Affine, text: Text, language_share: float = 0.0
) -> Arcs:
    """Log-probabilities of the text's next token and of blank in each cell; float32 (float64 from
    float64) inside autocast, too; 0 in padding, which is never read.

    Args:
        acoustic: by frame; language: by text.
        language_share: share of the log-probability by `language` alone against that of both: it
            lets the acoustic part learn to correct the text's part.
    """
    return Arcs(*_Additive.apply(*acoustic, *language, text, language_share))


class _Rows(NamedTuple):
    """Exponentials of logits: x weight^T + bias = log(exp) + most."""

    exp: Tensor
    most: Tensor

    @staticmethod
    def of(logits: Tensor) -> "_Rows":
        most = logits.amax(dim=1)
        return _Rows(logits.sub_(most[:, None]).exp_(), most)


class _Additive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        *tensors, text, share = inputs
        with full_precision(tensors[0]):
            x, weight, bias, y, lm_weight, lm_bias = map(at_least_float32, tensors)
            norm = x.new_zeros(x.shape[0], x.shape[1], y.shape[1])
            symbol, blank = torch.zeros_like(norm[:, :, :-1]), torch.zeros_like(norm)
            for n, frames, tokens in text.each():
                said = len(tokens)
                lm = torch.addmm(lm_bias, y[n, : said + 1], lm_weight.t())
                lm_token, lm_blank = lm[:said].gather(1, tokens[:, None])[:, 0], lm[:, 0].clone()
                texts = _Rows.of(lm)
                alone = texts.exp.sum(dim=1).log_().add_(texts.most)
                for block in blocks(frames, len(bias), x.device):
                    logits = torch.addmm(bias, x[n, block], weight.t())
                    am_token, am_blank = logits[:, tokens], logits[:, :1].clone()
                    both = _normaliser(_Rows.of(logits), texts)
                    norm[n, block, : said + 1] = both
                    symbol[n, block, :said] = torch.lerp(
                        am_token + lm_token - both[:, :said], lm_token - alone[:said], share
                    )
                    blank[n, block, : said + 1] = torch.lerp(
                        am_blank + lm_blank - both, lm_blank - alone, share
                    )
        ctx.save_for_backward(*tensors, norm)
        ctx.text, ctx.share = text, share
        return symbol, blank

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, norm = ctx.saved_tensors
        text, share = ctx.text, ctx.share
        result = [zeros(x) for x in tensors]
        dx, dweight, dbias, dy, dlm_weight, dlm_bias = result
        with full_precision(tensors[0]):
            x, weight, bias, y, lm_weight, lm_bias = map(at_least_float32, tensors)
            for n, frames, tokens in text.each():
                said = len(tokens)
                texts = _Rows.of(torch.addmm(lm_bias, y[n, : said + 1], lm_weight.t()))
                dsymbol, dblank = grads[0][n, :frames, :said], grads[1][n, :frames, : said + 1]
                dnorm = _with_symbols(dblank, dsymbol)
                dtexts = torch.zeros_like(texts.exp)
                for block in blocks(frames, len(bias), x.device):
                    rows = _Rows.of(torch.addmm(bias, x[n, block], weight.t()))
                    dsum = _per_sum(dnorm[block], norm[n, block, : said + 1], rows, texts)
                    dsum *= share - 1.0
                    dtexts.addmm_(dsum.t(), rows.exp)
                    dlogits = rows.exp.mul_(dsum @ texts.exp)
                    spread = tokens.expand(len(dlogits), -1)
                    dlogits.scatter_add_(1, spread, (1.0 - share) * dsymbol[block])
                    dlogits[:, 0] += (1.0 - share) * dblank[block].sum(dim=1)
                    torch.mm(dlogits, weight, out=dx[n, block])
                    dweight.addmm_(dlogits.t(), x[n, block])
                    dbias += dlogits.sum(dim=0)
                alone = share * dnorm.sum(dim=0) / texts.exp.sum(dim=1)
                dlm = dtexts.sub_(alone[:, None]).mul_(texts.exp)
                dlm[:said].scatter_add_(1, tokens[:, None], dsymbol.sum(dim=0)[:, None])
                dlm[:, 0] += dblank.sum(dim=0)
                torch.mm(dlm, lm_weight, out=dy[n, : said + 1])
                dlm_weight.addmm_(dlm.t(), y[n, : said + 1])
                dlm_bias += dlm.sum(dim=0)
        return *(d.to(x.dtype) for d, x in zip(result, tensors)), None, None


def _normaliser(frames: _Rows, texts: _Rows) -> Tensor:
    """(T, W) log of the sum over the vocabulary."""
    both = (frames.exp @ texts.exp.t()).clamp_(min=torch.finfo(frames.exp.dtype).tiny).log_()
    return both.add_(frames.most[:, None]).add_(texts.most)


def _per_sum(dnorm: Tensor, norm: Tensor, frames: _Rows, texts: _Rows) -> Tensor:
    """(T, W) gradient of the sum itself; 0 where it was too small to be told from 0."""
    log_sum = norm - frames.most[:, None] - texts.most
    lost = log_sum < math.log(torch.finfo(norm.dtype).tiny) + 1.0
    return (dnorm * log_sum.neg().exp_()).masked_fill_(lost, 0.0)


def _with_symbols(blank: Tensor, symbol: Tensor) -> Tensor:
    total = blank.clone()
    total[:, :-1] += symbol
    return total
