"""Trees of tensors: names, mapping, stacking, splitting."""

from typing import NamedTuple

import torch
from torch import Tensor

from dualasr_lib.core.tree import leaves, map_tree, split, stack, unflatten


class Leaf(NamedTuple):
    a: Tensor
    b: Tensor


class Tree(NamedTuple):
    layers: tuple[Leaf, ...]
    age: Tensor


def tree(value: float) -> Tree:
    leaf = Leaf(torch.full((1, 2), value), torch.full((1, 3, 4), value))
    return Tree((leaf, leaf), torch.full((1,), value))


def test_names_in_order() -> None:
    names = [name for name, _ in leaves(tree(0.0))]
    assert names == ["layers.0.a", "layers.0.b", "layers.1.a", "layers.1.b", "age"]


def test_stack_and_split_are_inverse() -> None:
    batch = stack([tree(1.0), tree(2.0), tree(3.0)])
    assert batch.layers[1].b.shape == (3, 3, 4)
    for value, one in zip((1.0, 2.0, 3.0), split(batch)):
        assert isinstance(one, Tree) and isinstance(one.layers[0], Leaf)
        for (_, got), (_, expected) in zip(leaves(one), leaves(tree(value))):
            assert torch.equal(got, expected)


def test_map_goes_into_mappings_and_leaves_the_rest_as_it_is() -> None:
    leaf = Leaf(torch.ones(1), torch.ones(2))
    node = {"a": leaf, "b": (torch.ones(3), None, "title", 0.5)}
    found = map_tree(torch.neg, node)
    assert isinstance(found["a"], Leaf) and float(found["a"].a) == -1.0
    assert found["b"][0].tolist() == [-1.0] * 3 and found["b"][1:] == (None, "title", 0.5)


def test_map_and_unflatten() -> None:
    total = map_tree(torch.add, tree(1.0), tree(2.0))
    rebuilt = unflatten(tree(0.0), [tensor for _, tensor in leaves(total)])
    assert float(rebuilt.age) == 3.0 and float(rebuilt.layers[0].a[0, 0]) == 3.0
