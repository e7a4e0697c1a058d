"""Files of tensors and plain data: what comes back, and every file that is refused, in one line."""

import hashlib
import json
import pickle
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dualasr_lib.core.container import (
    Container,
    ContainerError,
    is_container,
    read_container,
    write_container,
)

CONTENT = Container(
    {"text": "音声", "number": 0.1, "nested": {"list": [1, None, True]}, "big": float("inf")},
    {
        "matrix": torch.arange(6, dtype=torch.float32).reshape(2, 3) / 7,
        "column": torch.arange(6.0).reshape(2, 3).t()[1],
        "scalar": torch.tensor(3.5, dtype=torch.float64),
        "half": torch.tensor([1.5, -2.0], dtype=torch.float16),
        "brain": torch.tensor([1.5, -2.0, 7.0], dtype=torch.bfloat16),
        "count": torch.tensor([1 << 40]),
        "flags": torch.tensor([True, False]),
        "nothing": torch.zeros(0, 4),
    },
    {"a.arpa": b"\\data\\\n\x00\xff", "empty": b""},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_container(tmp_path / "x.dualasr", CONTENT)
    return tmp_path / "x.dualasr"


def test_what_was_written_comes_back(path: Path) -> None:
    plain, tensors, files = read_container(path)
    assert (plain, files) == (CONTENT.plain, CONTENT.files)
    assert list(tensors) == list(CONTENT.tensors)
    for name, tensor in CONTENT.tensors.items():
        assert tensors[name].dtype == tensor.dtype and tensors[name].shape == tensor.shape
        assert torch.equal(tensors[name], tensor)
    assert is_container(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_flipped_bits_are_found(path: Path) -> None:
    whole = path.read_bytes()
    draw = random.Random(3)
    places = draw.sample(range(64, len(whole)), 200)
    for place in (*range(64), *places):  # the prefix whole
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(ContainerError) as error:
            read_container(path)
        message = str(error.value)
        assert message.startswith(str(path)) and "\n" not in message
        assert "is damaged" in message or (place < 8 and "is no bundle" in message)


def test_truncation_and_what_is_too_long_are_found(path: Path) -> None:
    whole = path.read_bytes()
    sizes = (*range(66), *random.Random(4).sample(range(len(whole)), 100), len(whole) - 1)
    for data in (*(whole[:size] for size in sizes), whole + b"\0", whole + whole):
        path.write_bytes(data)
        with pytest.raises(ContainerError, match=r"is damaged|is no bundle"):
            read_container(path)


def _sealed(version: int, header: bytes, body: bytes = b"") -> bytes:
    """A file whose checksum is right, whatever it holds."""
    rest = header + body
    prefix = struct.pack("<8sIIQQ", b"DUALASR\x1a", version, 0, len(header), 64 + len(rest))
    return prefix + hashlib.sha256(prefix + rest).digest() + rest


def test_a_newer_file_is_named_as_such(path: Path) -> None:
    path.write_bytes(_sealed(2, b"whatever a newer version writes"))
    with pytest.raises(ContainerError, match=r"has format 2, .* reads format 1: install a newer"):
        read_container(path)


def _tensor(**changes: Any) -> bytes:
    member = {"kind": "tensor", "name": "w", "at": 0, "size": 8, "dtype": "float32", "shape": [2]}
    return json.dumps({"plain": {}, "members": [{**member, **changes}]}).encode()


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"no json",
        b"[]",
        b"{}",
        b'{"plain": 3, "members": []}',
        b'{"plain": {}, "members": [3]}',
        b"[" * 100_000,
        b"\xff\xfe",
        _tensor(at=-8),
        _tensor(at=4),
        _tensor(size=-8),
        _tensor(size=1 << 62, shape=[1 << 60]),
        _tensor(dtype="load"),
        _tensor(dtype="object"),
        _tensor(shape=[-1, -2]),
        _tensor(shape=[3]),
        _tensor(shape="ab"),
        _tensor(at=1.5),
        _tensor(size="8"),
    ],
)
def test_a_forged_header_is_refused(path: Path, header: bytes) -> None:
    path.write_bytes(_sealed(1, header, b"12345678"))
    with pytest.raises(ContainerError, match=r"was not written by this program"):
        read_container(path)
    path.write_bytes(_sealed(1, _tensor(), b"12345678"))
    assert read_container(path).tensors["w"].shape == (2,)  # the forger's tools work


class _Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return open, (str(self._path), "w")


def test_a_pickle_is_not_executed(tmp_path: Path) -> None:
    trap, sprung = _Trap(tmp_path / "sprung"), tmp_path / "sprung"
    torch.save({"model": trap}, tmp_path / "new.dualasr")
    torch.save(trap, tmp_path / "old.dualasr", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.dualasr").write_bytes(pickle.dumps(trap))
    (tmp_path / "within.dualasr").write_bytes(_sealed(1, pickle.dumps(trap)))
    for name in ("new", "old", "plain", "within"):
        with pytest.raises(ContainerError, match=r"is no bundle|is damaged"):
            read_container(tmp_path / f"{name}.dualasr")
        assert not sprung.exists()
    pickle.loads((tmp_path / "plain.dualasr").read_bytes()).close()
    assert sprung.exists()  # it would have


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("hello")
    torch.save({}, tmp_path / "epoch-1.pt")
    for name, message in (
        ("none", "must be a file, but does not exist"),
        ("", "must be a file, but is a folder"),
        ("empty", "is no bundle of this program: it is empty"),
        ("text", "is no bundle of this program"),
        ("epoch-1.pt", "it looks like a torch checkpoint, which is not a bundle"),
    ):
        with pytest.raises(ContainerError) as error:
            read_container(tmp_path / name)
        assert message in str(error.value) and str(tmp_path / name) in str(error.value)
    assert not is_container(tmp_path / "text") and not is_container(tmp_path / "none")


def test_a_write_that_fails_leaves_the_file_as_it_was(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(ValueError, match="'z' is complex64"):
        write_container(path, Container({}, {"z": torch.zeros(1, dtype=torch.complex64)}, {}))
    with pytest.raises(TypeError):
        write_container(path, Container({"z": object()}, {}, {}))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
