"""Loads the model, in the decoding process."""

from pathlib import Path

from dualasr_lib.recognition.recogniser import Recogniser

__all__ = ["load_model"]


def load_model(
    bundle: Path,
    method: str | None = None,
    two_pass: bool | None = None,
    chunk_ms: int | None = None,
    endpoint: tuple[str, ...] = (),
) -> Recogniser:
    """The recogniser, set up for a thread that serves many streams; as `Recogniser.load`.

    Raises:
        ValueError: as `Recogniser.load`.
    """
    import torch

    torch.set_num_threads(1)  # streams share steps: one thread is filled by them
    torch.set_grad_enabled(False)
    return Recogniser.load(
        bundle, method=method, two_pass=two_pass, chunk_ms=chunk_ms, endpoint=endpoint, device="cpu"
    )
