"""Giving back what a step that ran out of memory held."""

import torch

__all__ = ["release"]


def release(device: torch.device) -> None:
    """Gives memory that torch keeps for later back to the device, so that it is in one piece.

    To be called after the handling of the error: its traceback holds on to tensors.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
