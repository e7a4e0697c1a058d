"""Trees of arrays: NamedTuples (and tuples of them) whose leaves are tensors, or numpy's arrays,
with the batch axis first.

Streaming states are such trees. Stacking streams into a batch, splitting a batch into streams and
naming the leaves (for ONNX, for messages) are each one call, whatever the model. `map_tree` also
goes into mappings, and leaves what is no array as it is: losses and pictures. It leaves out lists.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

from dualasr_lib.core.arrays import Array, is_array, joined

__all__ = ["leaves", "map_tree", "split", "stack", "unflatten"]

T = TypeVar("T")


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Array]]:
    """(dotted name, tensor) of each leaf in order: `layers.0.conv1.left`."""
    if is_array(node):
        yield prefix, node
        return
    names = getattr(node, "_fields", range(len(node)))
    for name, child in zip(names, node):
        yield from leaves(child, f"{prefix}.{name}" if prefix else str(name))


def map_tree(function: Callable[..., Any], *nodes: T) -> T:
    """A tree of the shape of `nodes[0]` whose leaves are `function(leaf of each node)`."""
    head, every = nodes[0], cast(Any, nodes)
    if is_array(head):
        result: T = function(*nodes)
        return result
    if isinstance(head, Mapping):
        named: Any = {name: map_tree(function, *(node[name] for node in every)) for name in head}
        return named
    if not isinstance(head, tuple):
        return head
    children, kind = [map_tree(function, *group) for group in zip(*every)], cast(Any, type(head))
    made: T = kind(*children) if hasattr(head, "_fields") else kind(children)
    return made


def unflatten(like: T, flat: Iterable[Array]) -> T:
    """The tree shaped as `like` with the tensors of `flat` in the order of `leaves`."""
    iterator = iter(flat)
    return map_tree(lambda _: next(iterator), like)


def stack(states: Sequence[T]) -> T:
    """Joins states along the batch axis: N states of batch 1 become one of batch N."""
    if len(states) == 1:
        return states[0]
    return map_tree(lambda *tensors: joined(tensors), *states)


def split(state: T) -> list[T]:
    """The streams of a batch, each as a state of batch 1 (views, not copies)."""
    size = next(tensor.shape[0] for _, tensor in leaves(state))
    return [map_tree(lambda leaf, i=i: leaf[i : i + 1], state) for i in range(size)]
