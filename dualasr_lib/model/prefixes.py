"""Prefix trees of n-best lists, so that a decoder computes each prefix once.

The hypotheses of one utterance mostly begin alike. What a decoder says at a position depends on the
prefix only, so each distinct prefix is one node of the utterance's tree; a hypothesis of U tokens
is a path of U + 1 nodes from the root (nothing but the start) down. Trees are cut into chunks whose
size is bounded. It leaves out shared endings: a decoder's state there differs.

Letters: P hypotheses of N utterances; in a chunk R hypotheses of G trees, M nodes, L = U + 1.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["PrefixChunk", "prefix_chunks"]


class PrefixChunk(NamedTuple):
    """Some trees, computed together; all tensors are int64 on the CPU."""

    hypotheses: Tensor
    """(R,) which of the P hypotheses."""
    owners: Tensor
    """(G,) the utterance of each tree."""
    tokens: Tensor
    """(G, M) last token of each prefix; the start at the root and in unused nodes."""
    depths: Tensor
    """(G, M) tokens of each prefix."""
    paths: Tensor
    """(R, L) nodes of each hypothesis, numbered through all G M nodes; its last again behind it."""
    places: Tensor
    """(G M,) for each node the place among the R L of `paths` where it stands first; else 0."""


class _Node(NamedTuple):
    """A prefix."""

    token: int
    """Its last token."""
    depth: int
    """Its number of tokens."""
    row: int
    """The first hypothesis of the tree that has it."""


class _Tree(NamedTuple):
    """Hypotheses of one utterance that go into one chunk."""

    owner: int
    """The utterance."""
    hypotheses: list[int]
    """Which of the P hypotheses."""
    nodes: list[_Node]
    """The root first."""
    walks: list[list[int]]
    """The nodes of each hypothesis."""

    @property
    def length(self) -> int:
        """Nodes of the longest hypothesis."""
        return max(map(len, self.walks))


def prefix_chunks(
    texts: Sequence[Sequence[int]], owners: Sequence[int], start: int, max_positions: int
) -> Iterator[PrefixChunk]:
    """Chunks that hold each hypothesis once, in any order.

    Args:
        texts: token ids of each of the P hypotheses.
        owners: utterance of each.
        start: token at the root.
        max_positions: bounds R L and G M of a chunk, unless one hypothesis alone is longer.
    """
    trees = list(_trees(texts, owners, max_positions))
    trees.sort(key=lambda tree: (tree.length, len(tree.nodes)), reverse=True)
    chunk: list[_Tree] = []
    for tree in trees:
        wider = [*chunk, tree]
        places = sum(len(one.walks) for one in wider) * wider[0].length
        nodes = len(wider) * max(len(one.nodes) for one in wider)
        if chunk and max(places, nodes) > max_positions:
            yield _joined(chunk, start)
            wider = [tree]
        chunk = wider
    if chunk:
        yield _joined(chunk, start)


def _trees(
    texts: Sequence[Sequence[int]], owners: Sequence[int], max_positions: int
) -> Iterator[_Tree]:
    """Cuts each utterance's list; neighbours in dictionary order share most."""
    order = sorted(range(len(texts)), key=lambda i: (owners[i], texts[i]))
    for owner, group in groupby(order, key=lambda i: owners[i]):
        members: list[int] = []
        longest = 0
        for i in group:
            length = len(texts[i]) + 1
            if members and (len(members) + 1) * max(longest, length) > max_positions:
                yield _tree(owner, members, texts)
                members, longest = [], 0
            members.append(i)
            longest = max(longest, length)
        yield _tree(owner, members, texts)


def _tree(owner: int, members: list[int], texts: Sequence[Sequence[int]]) -> _Tree:
    nodes, walks = [_Node(token=0, depth=0, row=0)], []
    children: dict[tuple[int, int], int] = {}
    for row, i in enumerate(members):
        walk = [0]
        for depth, token in enumerate(texts[i], start=1):
            node = children.setdefault((walk[-1], token), len(nodes))
            if node == len(nodes):
                nodes.append(_Node(token, depth, row))
            walk.append(node)
        walks.append(walk)
    return _Tree(owner, members, nodes, walks)


def _joined(trees: Sequence[_Tree], start: int) -> PrefixChunk:
    num_nodes = max(len(tree.nodes) for tree in trees)
    length = max(tree.length for tree in trees)
    tokens = torch.full((len(trees), num_nodes), start)
    depths, places = torch.zeros_like(tokens), torch.zeros_like(tokens)
    paths: list[list[int]] = []
    for i, tree in enumerate(trees):
        token, depth, row = torch.tensor(tree.nodes).unbind(1)
        tokens[i, 1 : len(token)] = token[1:]
        depths[i, : len(token)] = depth
        places[i, : len(token)] = (len(paths) + row) * length + depth
        for walk in tree.walks:
            walk = walk + walk[-1:] * (length - len(walk))
            paths.append([i * num_nodes + node for node in walk])
    return PrefixChunk(
        hypotheses=torch.tensor([i for tree in trees for i in tree.hypotheses]),
        owners=torch.tensor([tree.owner for tree in trees]),
        tokens=tokens,
        depths=depths,
        paths=torch.tensor(paths),
        places=places.flatten(),
    )
