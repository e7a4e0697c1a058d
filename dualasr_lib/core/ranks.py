"""How the ranks of a distributed run stay together when one of them cannot go on with a step.

A rank that runs out of memory in the middle of a step would leave the others waiting in the next
exchange for ever. So all ranks meet before each exchange, and at the end of the step, and each says
whether it failed. If one did, all give the step up at that very meeting.

Everything that needs memory for an exchange must be made before the meeting, or a rank could fail
between the two. Left out: what to do with an abandoned step (training does that).
"""

import torch
from torch import distributed

__all__ = ["AbandonedError", "meet"]


class AbandonedError(RuntimeError):
    """A rank failed, so all of them give the step up."""


def meet(device: torch.device, *, failed: bool = False) -> None:
    """Waits for all ranks; each must call it equally often, a rank that failed once more and last.

    Args:
        device: where the ranks exchange tensors.

    Raises:
        AbandonedError: on every rank, if one of them failed.
    """
    count = float(failed)
    if distributed.is_available() and distributed.is_initialized():
        flag = torch.tensor([count], device=device)
        distributed.all_reduce(flag)
        count = float(flag)
    if count:
        raise AbandonedError(f"{count:.0f} ranks failed")
