"""Nested plain data and tensors <-> one JSON text and one flat table of tensors.

`torch.load(weights_only=True)` of torch 1.13.1 reads strings, integers and tensors, but no float
(its reader lacks that pickle operation). So a checkpoint keeps its plain part as JSON, which every
version reads, which shows floats exactly (shortest repr) and which a person can read too.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

__all__ = ["Packed", "pack", "unpack"]

_TENSOR, _TUPLE, _DICT = "$tensor", "$tuple", "$dict"


class Packed(NamedTuple):
    """A tree taken apart."""

    plain: str
    """JSON of the tree, with a named reference in the place of each tensor."""
    tensors: dict[str, Tensor]
    """Tensors by their path in the tree (`model/encoder.weight`)."""


def pack(tree: Any) -> Packed:
    """Takes a tree of dict, list, tuple, str, int, float, bool, None and tensors apart.

    Raises:
        ValueError: something else is in the tree; the message says where.
    """
    tensors: dict[str, Tensor] = {}
    plain = _encode(tree, "", tensors)
    return Packed(json.dumps(plain, ensure_ascii=False), tensors)


def unpack(packed: Packed) -> Any:
    """The tree that `pack` was given (tensors detached)."""
    return _decode(json.loads(packed.plain), packed.tensors)


def _encode(node: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, Tensor):
        assert path not in tensors, f"two tensors at '{path}'"
        tensors[path] = node.detach()
        return {_TENSOR: path}
    if node is None or isinstance(node, (bool, int, float, str)):
        return node
    if isinstance(node, Mapping):
        return _encode_mapping(node, path, tensors)
    if isinstance(node, (list, tuple)):
        items = [_encode(item, _join(path, i), tensors) for i, item in enumerate(node)]
        return items if isinstance(node, list) else {_TUPLE: items}
    raise ValueError(
        f"a checkpoint holds plain data and tensors only, but '{path}' is a {type(node).__name__}"
    )


def _encode_mapping(node: Mapping[Any, Any], path: str, tensors: dict[str, Tensor]) -> Any:
    values = [_encode(value, _join(path, key), tensors) for key, value in node.items()]
    if all(isinstance(key, str) and not key.startswith("$") for key in node):
        return dict(zip(node, values))
    keys = [_encode(key, f"{path}/(key)", tensors) for key in node]
    return {_DICT: [list(pair) for pair in zip(keys, values)]}


def _decode(node: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(node, list):
        return [_decode(item, tensors) for item in node]
    if not isinstance(node, dict):
        return node
    if _TENSOR in node:
        return tensors[node[_TENSOR]]
    if _TUPLE in node:
        return tuple(_decode(item, tensors) for item in node[_TUPLE])
    if _DICT in node:
        return {_decode(k, tensors): _decode(v, tensors) for k, v in node[_DICT]}
    return {key: _decode(value, tensors) for key, value in node.items()}


def _join(path: str, key: object) -> str:
    return f"{path}/{key}" if path else str(key)
