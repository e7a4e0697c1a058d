"""Dropping parts of utterances in training: whole modules, whole layers, the later channels.

Source: the public description of Zipformer (arXiv 2310.11230). Draws come from torch's generator of
the CPU: a seed fixes them, and whether anything is dropped is known without waiting for a GPU. A
mask that drops nothing is None, so that the multiplication can be left out. As published, what is
kept is not scaled up.

Letters: N batch, T frames, C channels.
"""

import torch
from torch import Tensor

__all__ = ["draw_features", "drawn", "feature_mask", "sequence_dropout", "sequence_mask"]


def drawn(probability: float) -> bool:
    """True with `probability`; 0 and 1 draw nothing."""
    if probability <= 0.0 or probability >= 1.0:
        return probability >= 1.0
    return torch.rand((), device="cpu").item() < probability


def sequence_mask(x: Tensor, rate: float, training: bool) -> Tensor | None:
    """Drops whole utterances with probability `rate`: (N, 1, ...) zeros and ones like x (N, ...).

    None where nothing is dropped. As published, what is kept is not scaled up. A layer is skipped
    by multiplying its bypass scale with it.
    """
    if not training or rate <= 0.0:
        return None
    kept = torch.rand(x.shape[0], device="cpu") >= rate
    return None if bool(kept.all()) else _moved(kept.view(-1, *[1] * (x.ndim - 1)), x)


def sequence_dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """x (N, ...) with whole utterances set to zero with probability `rate`."""
    mask = sequence_mask(x, rate, training)
    return x if mask is None else x * mask


def draw_features(batch: int, training: bool, rate: float = 0.125) -> Tensor | None:
    """Two nested draws per utterance, (N, 2) bool on the CPU, for `feature_mask` of all stacks.

    The first is False with probability `rate`, the second where the first is and with `rate` on its
    own. None where all are True.
    """
    if not training or rate <= 0.0:
        return None
    kept = torch.rand(batch, 2, device="cpu") >= rate
    kept[:, 1] &= kept[:, 0]
    return None if bool(kept.all()) else kept


def feature_mask(kept: Tensor | None, x: Tensor, unmasked_dim: int) -> Tensor | None:
    """(N, 1, C) zeros and ones for x (N, T, C) from `draw_features`; None: nothing is masked.

    Channels below `unmasked_dim` stay, the lower half of the others follows the first draw, the
    upper half the second. 0 masks nothing.
    """
    wide = x.shape[-1]
    if kept is None or not 0 < unmasked_dim < wide:
        return None
    middle = unmasked_dim + (wide - unmasked_dim) // 2
    mask = torch.ones(kept.shape[0], 1, wide, dtype=torch.bool)
    mask[:, :, unmasked_dim:middle] = kept[:, :1, None]
    mask[:, :, middle:] = kept[:, 1:, None]
    return _moved(mask, x)


def _moved(mask: Tensor, x: Tensor) -> Tensor:
    """A mask made on the CPU, as numbers beside x."""
    return mask.to(x.dtype).to(x.device, non_blocking=True)
