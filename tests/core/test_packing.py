"""Plain data and tensors survive packing exactly; anything else is refused by its place."""

import math

import pytest
import torch

from dualasr_lib.core.packing import Packed, pack, unpack


def test_round_trip_keeps_types_and_values() -> None:
    tree = {
        "float": 0.1 + 0.2,
        "special": [math.inf, -math.inf],
        "tuple": (1, (2, None), True),
        "int keys": {0: {"step": 2**80}, (1, "a"): "β"},
        "odd key": {"$tensor": 3},
        "tensors": [torch.arange(3), {"x": torch.tensor(1.5, dtype=torch.float64)}],
    }
    packed = pack(tree)
    assert isinstance(packed.plain, str)
    assert set(packed.tensors) == {"tensors/0", "tensors/1/x"}
    back = unpack(packed)
    assert torch.equal(back["tensors"][0], torch.arange(3))
    assert back["tensors"][1]["x"].dtype == torch.float64
    del tree["tensors"], back["tensors"]
    assert back == tree
    assert isinstance(back["tuple"], tuple)


def test_nan_survives() -> None:
    assert math.isnan(unpack(pack({"x": math.nan}))["x"])


def test_gradients_are_left_behind() -> None:
    assert not unpack(pack(torch.ones(2, requires_grad=True))).requires_grad


def test_a_foreign_object_is_named_with_its_place() -> None:
    with pytest.raises(ValueError, match="'positions/0/seen' is a set"):
        pack({"positions": [{"seen": {1, 2}}]})


def test_unpack_of_plain_json() -> None:
    assert unpack(Packed('{"a": [1, 2.5]}', {})) == {"a": [1, 2.5]}
