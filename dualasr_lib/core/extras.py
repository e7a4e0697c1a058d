"""Optional libraries, and what to install where one is missing."""

from collections.abc import Mapping

__all__ = ["BY_HAND", "EXTRAS", "remedy"]

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "torch": ("recognise", "train", "data", "export", "serve"),
    "sentencepiece": ("recognise", "runtime", "train", "data", "export", "serve"),
    "soundfile": ("recognise", "runtime", "data", "corpus", "serve"),
    "soxr": ("recognise", "runtime", "data", "serve"),
    "kaldi_native_fbank": ("recognise", "runtime", "data", "serve"),
    "lhotse": ("train", "data"),
    "lilcom": ("train", "data"),
    "tensorboard": ("train",),
    "six": ("train",),
    "matplotlib": ("train", "data"),
    "pyopenjtalk": ("corpus",),
    "scipy": ("corpus",),
    "onnx": ("export",),
    "onnxruntime": ("runtime", "export"),
    "sherpa_onnx": ("export",),
    "starlette": ("serve", "web"),
    "uvicorn": ("serve", "web"),
    "websockets": ("serve", "web"),
    "prometheus_client": ("serve", "web"),
}
"""Library, as it is imported -> extras of pyproject.toml that bring it, the usual one first."""

BY_HAND = ("k2", "kaldifeat")
"""Those that tools/setup.sh installs; no extra does."""


def remedy(library: str, extra: str = "") -> str:
    """What to install for a library that is missing; empty: that is not known.

    Args:
        library: the module that was asked for; its first part counts.
        extra: that of the program; named if it brings the library.
    """
    library = library.partition(".")[0]
    if library in BY_HAND:
        return "bash tools/setup.sh"
    extras = EXTRAS.get(library, ())
    if not extras:
        return ""
    found = extra if extra in extras else extras[0]
    return f"pip install 'dualasr[{found}]' (in a checkout '.[{found}]')"
