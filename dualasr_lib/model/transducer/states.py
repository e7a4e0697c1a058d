"""What distillation compares between two transducers: one state per text begun, 0 ... U.

Branches hear a token at different times, so that their states have no frames in common; what they
do have in common are the texts. A state is read from the joiner's hidden layer where the branch's
own alignment has the text:

    mean        over the frames, weighted by how probably the text's next token is said there
    best        of the one frame where that is most probable
    prediction  the prediction network's states: text only, nothing that was heard

The last state has no next token; it is weighted by its blanks. Weights have no gradient.

N utterances, T frames, U tokens, W = U + 1 texts begun, R of them per frame, D channels.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from dualasr_lib.model.pairing import at_least_float32, valid_frames
from dualasr_lib.model.transducer.additive import Text
from dualasr_lib.model.transducer.loss import Alignment, View

__all__ = ["StateKind", "text_states"]

StateKind = Literal["mean", "best", "prediction"]


def text_states(view: View, text: Text, alignment: Alignment, kind: StateKind) -> Tensor:
    """States (N, W, D) of each text (P channels with `prediction`), at least float32; 0 behind a
    text's end and where an utterance has no path or no frame.
    """
    if kind not in get_args(StateKind):
        raise ValueError(f"kind must be one of {get_args(StateKind)}, but is {kind!r}")
    num_texts = text.tokens.shape[1] + 1
    valid = valid_frames(text.token_lens + 1, num_texts)[:, :, None]
    with torch.autocast(view.encoder.device.type, enabled=False):
        if kind == "prediction":
            return at_least_float32(view.language.x).masked_fill(~valid, 0.0)
        weights = _weights(text, alignment, num_texts)
        if kind == "best":
            weights = _largest(weights, alignment.texts, num_texts)
        return _mean_hidden(view, weights, alignment.texts)


def _weights(text: Text, alignment: Alignment, num_texts: int) -> Tensor:
    """(N, T, R) shares of each cell in the state of its text: they add up to 1 over the frames."""
    ended = alignment.texts == text.token_lens[:, None, None]
    size = torch.where(ended, alignment.blank, alignment.symbol)
    total = _per_text(size, alignment.texts, num_texts)
    return size / total.gather(1, alignment.texts.flatten(1)).view_as(size).clamp(min=1e-30)


def _largest(weights: Tensor, texts: Tensor, num_texts: int) -> Tensor:
    """1 in the first of the largest cells of each text, 0 in the others."""
    whole = weights.new_zeros(*weights.shape[:2], num_texts).scatter(2, texts, weights)
    if not whole.shape[1]:
        return weights
    best = whole.argmax(dim=1, keepdim=True)  # (N, 1, W)
    frames = torch.arange(whole.shape[1], device=whole.device)[None, :, None]
    chosen = (frames == best) & (whole > 0.0)
    return chosen.gather(2, texts).to(weights.dtype)


def _mean_hidden(view: View, weights: Tensor, texts: Tensor) -> Tensor:
    """Weighted sums of tanh(encoder + prediction) over the cells that have a weight."""
    batch, num_texts, dim = view.prediction.shape
    encoder, prediction = (
        at_least_float32(x).flatten(0, 1) for x in (view.encoder, view.prediction)
    )
    cells = weights.flatten().nonzero()[:, 0]
    frames = cells // texts.shape[2]
    owners = frames // max(1, texts.shape[1])
    rows = owners * num_texts + texts.flatten()[cells]
    hidden = torch.tanh(encoder[frames] + prediction[rows])
    parts = hidden * weights.flatten()[cells].to(hidden.dtype)[:, None]
    return parts.new_zeros(batch * num_texts, dim).index_add(0, rows, parts).view(batch, -1, dim)


def _per_text(cells: Tensor, texts: Tensor, num_texts: int) -> Tensor:
    """(N, T, R) -> (N, W) sums over the frames."""
    total = cells.new_zeros(cells.shape[0], num_texts)
    return total.scatter_add(1, texts.flatten(1), cells.flatten(1))
