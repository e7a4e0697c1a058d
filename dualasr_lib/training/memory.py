"""Out of memory: telling it from other errors, and giving back what a failed step held."""

import torch

__all__ = ["is_out_of_memory", "release"]

_TEXTS = (  # parts of messages of RuntimeErrors, which is all that these allocators raise
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",  # Windows
    "CUDA error: out of memory",  # outside torch's allocator
    "CUDA out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory could not be had, on the CPU or on a GPU."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)


def release(device: torch.device) -> None:
    """Gives memory that torch keeps for later back to the device, so that it is in one piece.

    To be called after the handling of the error: its traceback holds on to tensors.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
