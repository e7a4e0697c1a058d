"""A model in one file: all that recognition needs, and a card that says what it is.

    write_bundle(bundle, Path("x.dualasr")); read_bundle(Path("x.dualasr"))

Tensors and plain data in a `core.container`: nothing executes on loading. Left out: making a bundle
of an experiment, and recognising with one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dualasr_lib.core.container import (
    Container,
    ContainerError,
    is_container,
    read_container,
    write_container,
)
from dualasr_lib.core.files import AnyPath

__all__ = ["Bundle", "is_bundle", "read_bundle", "write_bundle"]

_TOKENIZER = "sentencepiece.model"
_TOKENS = "tokens.txt"
_LM, _LEXICON = "lm/", "lexicon/"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What the file holds."""

    weights: Mapping[str, Tensor]
    """The model's state dict."""
    config: Mapping[str, Any]
    """The whole configuration of its training; features and chunk are sections of it."""
    tokenizer: bytes
    """sentencepiece's model."""
    tokens: str
    """Content of `tokens.txt`."""
    source: str
    """Which weights these are, for reports."""
    corpus: str = ""
    language: str = ""
    """Code of ISO 639-1; empty: not known."""
    normaliser: str = "none"
    """What the training texts were normalised by."""
    units: Sequence[str] = ("character",)
    """What errors are counted in, the main one first."""
    endpoint: Mapping[str, Any] = field(default_factory=dict)
    """Options of `EndpointConfig` that are not its own defaults."""
    scales: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Tuned scales, as `tuning` keeps them, by the name of the results they are for."""
    lms: Mapping[str, bytes] = field(default_factory=dict)
    """n-grams (ARPA) by file name; of words if there is a lexicon, else of tokens."""
    lexicon: tuple[str, bytes] | None = None
    """File name and content."""
    licence: str = ""
    """Of the weights; empty: nothing was said, so nothing is allowed."""
    card: Mapping[str, Any] = field(default_factory=dict)
    """Data, errors with intervals, limits: for people."""


_PLAIN = ("config", "tokens", "source", "corpus", "language", "normaliser", "units", "endpoint",
          "scales", "licence", "card")  # fmt: skip


def write_bundle(bundle: Bundle, path: AnyPath) -> None:
    """Writes the file, whole or not at all.

    Raises:
        OSError: the disk is full or the folder cannot be written.
        ValueError: it holds what a file of plain data cannot.
    """
    files = {_TOKENIZER: bundle.tokenizer}
    files |= {f"{_LM}{name}": content for name, content in bundle.lms.items()}
    if bundle.lexicon is not None:
        files[f"{_LEXICON}{bundle.lexicon[0]}"] = bundle.lexicon[1]
    plain = {name: getattr(bundle, name) for name in _PLAIN}
    write_container(path, Container(plain, dict(bundle.weights), files))


def read_bundle(path: AnyPath) -> Bundle:
    """Reads the file; its tensors are on the CPU.

    Raises:
        ContainerError: it is missing, no bundle, damaged, or of a newer version.
    """
    plain, tensors, files = read_container(path)
    missing = [name for name in (*_PLAIN, _TOKENIZER) if name not in {**plain, **files}]
    if missing:
        raise ContainerError(f"{path} must hold a {missing[0]}, but has none")
    lexicons = [(name.removeprefix(_LEXICON), content) for name, content in files.items()
                if name.startswith(_LEXICON)]  # fmt: skip
    return Bundle(
        weights=tensors,
        tokenizer=files[_TOKENIZER],
        lms={n.removeprefix(_LM): content for n, content in files.items() if n.startswith(_LM)},
        lexicon=lexicons[0] if lexicons else None,
        **{name: plain[name] for name in _PLAIN},
    )


def is_bundle(path: AnyPath) -> bool:
    """Whether a file begins as a bundle does."""
    return is_container(path)
