"""One file of plain data, tensors and other files' bytes, in which nothing can execute on reading.

    prefix (64 bytes)   magic, version, header length, file length, sha256 of all other bytes
    header              JSON: the plain data, and name, kind, place of each member
    members             raw little-endian numbers, or bytes as they are, each at a multiple of 64

The prefix is that of every version, so that an older program can tell a newer file from a damaged
one. No pickle is read or written: a torch checkpoint, or a file that pretends to be one, is refused
by its first bytes. torch is imported where tensors are made: reading a header needs none.
"""

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dualasr_lib.core.files import AnyPath, write_atomically
from dualasr_lib.core.program import what_is_wrong

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Container",
    "ContainerError",
    "Header",
    "is_container",
    "read_container",
    "read_header",
    "write_container",
]

_MAGIC = b"DUALASR\x1a"
_VERSION = 1
_PREFIX = struct.Struct("<8sIIQQ")  # magic, version, 0, header length, file length
_DIGEST = hashlib.sha256().digest_size
_START = _PREFIX.size + _DIGEST
_ALIGNMENT = 64
_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8",
           "bool")  # fmt: skip


class ContainerError(ValueError):
    """A file is none, damaged, or of a newer version; the message begins with its path."""


class Container(NamedTuple):
    """What such a file holds."""

    plain: dict[str, Any]
    """What JSON can hold."""
    tensors: "dict[str, Tensor]"
    """On the CPU."""
    files: dict[str, bytes]
    """Other files, byte by byte."""


class Header(NamedTuple):
    """What such a file says before its members."""

    plain: dict[str, Any]
    members: tuple[Mapping[str, Any], ...]
    """Of each: `kind` ("tensor" or "file"), `name`, `size` in bytes; `dtype`, `shape` of a
    tensor."""


def write_container(path: AnyPath, content: Container) -> None:
    """Writes a file, whole or not at all.

    Raises:
        OSError: the disk is full or the folder cannot be written; nothing has changed.
        ValueError: a tensor of a type that such a file cannot hold.
    """
    path = Path(path)
    members, blocks = [], list[bytes]()
    place = 0
    for kind, name, data, more in _members(content):
        place += -place % _ALIGNMENT
        members.append({"kind": kind, "name": name, "at": place, "size": len(data), **more})
        blocks.append(data)
        place += len(data)
    header = json.dumps({"plain": content.plain, "members": members}, ensure_ascii=False).encode()
    header += b" " * (-(_START + len(header)) % _ALIGNMENT)
    body = bytearray(header)
    for data in blocks:
        body += b"\0" * (-(_START + len(body)) % _ALIGNMENT) + data
    prefix = _PREFIX.pack(_MAGIC, _VERSION, 0, len(header), _START + len(body))
    write_atomically(path, prefix + _checksum(prefix, body) + body)


def read_container(path: AnyPath) -> Container:
    """What `write_container` was given.

    Raises:
        ContainerError: the file is missing, of another kind, damaged, or of a newer version.
    """
    data, header_size = _checked(Path(path))
    try:
        return _unpacked(data, header_size)
    except _MALFORMED as error:
        raise _foreign(path, error) from None


def read_header(path: AnyPath) -> Header:
    """The plain data of a file, and what else is in it; the whole file is checked.

    Raises:
        ContainerError: as for `read_container`.
    """
    data, header_size = _checked(Path(path))
    try:
        header = _header(data, header_size)
        return Header(dict(header["plain"]), tuple(dict(member) for member in header["members"]))
    except _MALFORMED as error:
        raise _foreign(path, error) from None


def is_container(path: AnyPath) -> bool:
    """Whether a file begins as one."""
    path = Path(path)
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _checked(path: Path) -> tuple[bytearray, int]:
    """The bytes of a file that is whole and of this version, and the length of its header."""
    if not path.is_file():
        raise ContainerError(f"{path} must be a file, but {_instead(path)}")
    data = bytearray(path.read_bytes())
    if data[: len(_MAGIC)] != _MAGIC:
        raise ContainerError(f"{path} is no bundle of this program{_hint(data)}")
    if len(data) < _START:
        raise ContainerError(f"{path} is damaged: cut short after {len(data)} bytes")
    prefix = bytes(data[: _PREFIX.size])
    _, version, _, header_size, size = _PREFIX.unpack(prefix)
    if len(data) < size:
        raise ContainerError(f"{path} is damaged: {len(data)} bytes of {size}, cut short")
    view = memoryview(data)
    if len(data) != size or _checksum(prefix, view[_START:]) != view[_PREFIX.size : _START]:
        raise ContainerError(f"{path} is damaged: its content does not fit its checksum")
    if version != _VERSION:
        raise ContainerError(
            f"{path} has format {version}, but this version of the program reads format "
            f"{_VERSION}: install a newer dualasr"
        )
    return data, header_size


_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RecursionError, RuntimeError)


def _foreign(path: AnyPath, error: Exception) -> ContainerError:
    return ContainerError(
        f"{path} is damaged or was not written by this program: {what_is_wrong(error)}"
    )


def _members(content: Container) -> list[tuple[str, str, bytes, dict[str, Any]]]:
    """(kind, name, bytes, further fields) of each member."""
    import torch

    found: list[tuple[str, str, bytes, dict[str, Any]]] = []
    for name, value in content.tensors.items():
        dtype = str(value.dtype).removeprefix("torch.")
        if dtype not in _DTYPES:
            raise ValueError(f"tensors must be {', '.join(_DTYPES)}, but '{name}' is {dtype}")
        flat = value.detach().cpu().contiguous().reshape(-1)
        data = flat.view(torch.uint8).numpy().tobytes()
        found.append(("tensor", name, data, {"dtype": dtype, "shape": list(value.shape)}))
    return found + [("file", name, bytes(data), {}) for name, data in content.files.items()]


def _unpacked(data: bytearray, header_size: int) -> Container:
    """The content of a whole file whose checksum is right; any error if its writer was not ours."""
    header = _header(data, header_size)
    tensors: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    for member in header["members"]:
        start, size = _START + header_size + member["at"], member["size"]
        if not (member["at"] >= 0 and size >= 0 and start + size <= len(data)):
            raise ValueError(f"member {member['name']} lies outside the file")
        if member["kind"] == "file":
            files[str(member["name"])] = bytes(data[start : start + size])
        else:
            tensors[str(member["name"])] = _tensor(data, start, size, member)
    return Container(dict(header["plain"]), tensors, files)


def _header(data: bytearray, header_size: int) -> Any:
    if _START + header_size > len(data):
        raise ValueError("the header reaches beyond the end")
    return json.loads(data[_START : _START + header_size])


def _tensor(data: bytearray, start: int, size: int, member: Mapping[str, Any]) -> "Tensor":
    import torch

    if member["dtype"] not in _DTYPES:
        raise ValueError(f"member {member['name']} has the unknown type {member['dtype']!r}")
    dtype: torch.dtype = getattr(torch, member["dtype"])
    shape = [int(length) for length in member["shape"]]
    count = math.prod(shape)
    if min(shape, default=0) < 0 or count * torch.empty(0, dtype=dtype).element_size() != size:
        raise ValueError(f"member {member['name']} of shape {shape} has {size} bytes")
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype, count=count, offset=start).reshape(shape)


def _checksum(prefix: bytes, body: bytearray | memoryview) -> bytes:
    digest = hashlib.sha256(prefix)
    digest.update(body)
    return digest.digest()


def _instead(path: Path) -> str:
    return "is a folder" if path.is_dir() else "does not exist"


def _hint(data: bytearray) -> str:
    if not data:
        return ": it is empty"
    if data[:2] == b"PK" or data[:1] == b"\x80":
        return ": it looks like a torch checkpoint, which is not a bundle"
    return ""
