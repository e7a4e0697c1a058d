"""Out of memory: telling it from other errors, on the CPU and on a GPU."""

import sys

__all__ = ["is_memory_error"]

_TEXTS = (  # parts of messages of RuntimeErrors, which is all that these allocators raise
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",  # Windows
    "CUDA error: out of memory",  # outside torch's allocator
    "CUDA out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "bad_alloc",  # C++
)


def is_memory_error(error: BaseException) -> bool:
    """Whether `error` says that memory could not be had."""
    torch = sys.modules.get("torch")  # a program that has not imported it has no such error
    if isinstance(error, MemoryError):
        return True
    if torch is not None and isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)
