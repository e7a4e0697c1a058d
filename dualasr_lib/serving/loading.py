"""Loads the model, in the decoding process."""

from pathlib import Path

from dualasr_lib.recognition.recogniser import Recogniser
from dualasr_lib.runtime.layout import is_runtime_set

__all__ = ["load_model"]


def load_model(
    bundle: Path,
    *,
    method: str | None = None,
    two_pass: bool | None = None,
    chunk_ms: int | None = None,
    endpoint: tuple[str, ...] = (),
) -> Recogniser:
    """The recogniser, set up for a thread that serves many streams; as `Recogniser.load`.

    Raises:
        ValueError: as `Recogniser.load`, or a bundle where there is no torch.
    """
    if not is_runtime_set(bundle):
        try:
            import torch
        except ImportError:
            raise ValueError(
                f"{bundle.name} needs torch: pip install 'dualasr[recognise]'; without it --bundle "
                "must be a folder that dualasr-export --format runtime wrote"
            ) from None
        torch.set_num_threads(1)  # streams share steps: one thread is filled by them
        torch.set_grad_enabled(False)
    return Recogniser.load(
        bundle, method=method, two_pass=two_pass, chunk_ms=chunk_ms, endpoint=endpoint, device="cpu"
    )
