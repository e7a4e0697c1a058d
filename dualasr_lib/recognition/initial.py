"""Weights that another training may begin with: of a bundle, or of one checkpoint of any age."""

import zipfile
from pathlib import Path

from dualasr_lib.core import archive
from dualasr_lib.core.checkpoint import Checkpoint
from dualasr_lib.core.files import AnyPath
from dualasr_lib.core.weights import Weights
from dualasr_lib.data.tokenizer import tokens_fingerprint
from dualasr_lib.recognition.bundle import is_bundle, read_bundle
from dualasr_lib.recognition.older import current_weights

__all__ = ["read_trained"]


def read_trained(path: AnyPath) -> Weights:
    """The weights, under today's names; `fingerprints` has "tokens", the hash of the token list, of
    a bundle, and "tokenizer", that of list and sentencepiece model, of a checkpoint.

    Raises:
        ValueError: a file that is neither of the two, or damaged.
    """
    path = Path(path)
    if is_bundle(path):
        bundle = read_bundle(path)
        fingerprints = {"tokens": tokens_fingerprint(bundle.tokens)}
        weights = current_weights(bundle.weights)
        return Weights(weights, dict(bundle.config), fingerprints, bundle.source)
    if path.is_file() and not zipfile.is_zipfile(path):
        raise ValueError(f"{path} must be a bundle or a checkpoint, but is neither, or cut short")
    content = archive.read(path)
    if not isinstance(content, dict) or content.keys() < set(Checkpoint._fields):
        raise ValueError(f"{path} must be a bundle or a checkpoint, but holds something else")
    found = Checkpoint(**content)
    weights = current_weights(found.model)
    return Weights(weights, found.config, found.fingerprints, path.name)
