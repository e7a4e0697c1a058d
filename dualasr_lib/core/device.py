"""The device that a process computes on."""

import os

import torch

__all__ = ["local_device"]


def local_device(name: str) -> torch.device:
    """The device of this process: `cpu`, `cuda` (GPU number LOCAL_RANK), or `auto` (GPU if any).

    Raises:
        ValueError: another name than auto, cpu and cuda, or `cuda` where torch sees none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        if not torch.cuda.is_available():
            raise ValueError("device cuda needs a GPU that torch can see, but there is none")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if name != "cpu":
        raise ValueError(f"device must be auto, cpu or cuda, but is {name!r}")
    return torch.device(name)
