"""Randomness as a function of where a run is, so that a checkpoint needs no generator states.

The global generators are seeded anew for each step from (seed, step, rank, purpose). A resumed run
then draws what the uninterrupted one would have drawn, whatever a validation, a worker start or
another device count drew in between.
"""

import hashlib
import random
import sys

import torch

__all__ = ["seed_all"]


def seed_all(*key: int | str) -> None:
    """Seeds python's, torch's (all devices) and, if it is loaded, numpy's generator from `key`."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    seed = int.from_bytes(digest[:4], "little")  # 32 bits: what the Mersenne twisters take
    random.seed(seed)
    torch.manual_seed(seed)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(seed)
