"""A model in one file: all that recognition needs, and a card that says what it is.

    write_bundle(bundle, Path("x.dualasr")); read_bundle(Path("x.dualasr"))

Tensors and plain data in a `core.container`: nothing executes on loading. Left out: making a bundle
of an experiment (`bundling`), and recognising with one (`origin`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from dualasr_lib.core.container import (
    Container,
    ContainerError,
    is_container,
    read_container,
    read_header,
    write_container,
)
from dualasr_lib.core.files import AnyPath

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Bundle", "Contents", "is_bundle", "read_bundle", "read_contents", "write_bundle"]

_TOKENIZER = "sentencepiece.model"
_TOKENS = "tokens.txt"
_LM, _LEXICON = "lm/", "lexicon/"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What the file holds."""

    weights: "Mapping[str, Tensor]"
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
    """Tuned scales by the name of the results they are for: as `tuning` keeps them, with the
    `branch` and `method` of these results."""
    lms: Mapping[str, bytes] = field(default_factory=dict)
    """n-grams (ARPA) by file name; of words if there is a lexicon, else of tokens."""
    lexicon: tuple[str, bytes] | None = None
    """File name and content."""
    licence: str = ""
    """Of the weights; empty: nothing was said, so nothing is allowed."""
    card: Mapping[str, Any] = field(default_factory=dict)
    """Data, errors with intervals, limits: for people."""


_PLAIN: dict[str, type] = {
    "config": dict,
    "tokens": str,
    "source": str,
    "corpus": str,
    "language": str,
    "normaliser": str,
    "units": list,
    "endpoint": dict,
    "scales": dict,
    "licence": str,
    "card": dict,
}
"""The fields that are plain data, and what JSON makes of them."""


class Contents(NamedTuple):
    """What a file holds, its tensors and files not read."""

    plain: Mapping[str, Any]
    """The fields of `Bundle` that are plain data."""
    num_weights: int
    """Numbers in the tensors."""
    dtypes: tuple[str, ...]
    """Of the tensors of floating point."""
    language_files: tuple[str, ...]
    """n-grams and lexicon."""


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
    _check(path, plain, list(files))
    lexicons = [(name.removeprefix(_LEXICON), content) for name, content in files.items()
                if name.startswith(_LEXICON)]  # fmt: skip
    return Bundle(
        weights=tensors,
        tokenizer=files[_TOKENIZER],
        lms={n.removeprefix(_LM): content for n, content in files.items() if n.startswith(_LM)},
        lexicon=lexicons[0] if lexicons else None,
        **{name: plain[name] for name in _PLAIN},
    )


def read_contents(path: AnyPath) -> Contents:
    """What is in the file; the whole file is checked, and torch is not needed.

    Raises:
        ContainerError: as for `read_bundle`.
    """
    plain, members = read_header(path)
    files = [str(member["name"]) for member in members if member["kind"] == "file"]
    _check(path, plain, files)
    tensors = [member for member in members if member["kind"] == "tensor"]
    return Contents(
        plain,
        sum(math.prod(member["shape"]) for member in tensors),
        tuple(sorted({member["dtype"] for member in tensors if "float" in member["dtype"]})),
        tuple(name.partition("/")[2] for name in files if name != _TOKENIZER),
    )


def _check(path: AnyPath, plain: Mapping[str, Any], files: Sequence[str]) -> None:
    """ContainerError unless all parts are there, and are what they should be."""
    missing = [name for name in (*_PLAIN, _TOKENIZER) if name not in (*plain, *files)]
    if missing:
        raise ContainerError(f"{path} must hold a {missing[0]}, but has none")
    for name, kind in _PLAIN.items():
        if not isinstance(plain[name], kind):
            raise ContainerError(f"{path} must hold a {name} of type {kind.__name__}, but it is "
                                 f"{plain[name]!r:.40}")  # fmt: skip
    for name in files:
        folder, _, own = name.rpartition("/")
        if name != _TOKENIZER and (f"{folder}/" not in (_LM, _LEXICON) or own in ("", ".", "..")):
            raise ContainerError(f"{path} holds a file of the unknown name {name!r}")


def is_bundle(path: AnyPath) -> bool:
    """Whether a file begins as a bundle does."""
    return is_container(path)
