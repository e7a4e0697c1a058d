"""Names of tensors in few lines: "heads.ctc (4 tensors)" in place of four names."""

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

__all__ = ["Fold", "fold"]

_LINES = 12


class Fold(NamedTuple):
    """How many tensors' names there are under one prefix."""

    size: int
    total: int
    """All that the model has under that prefix."""

    @property
    def is_whole(self) -> bool:
        """Whether these are all."""
        return self.size == self.total

    def __str__(self) -> str:
        of = "" if self.is_whole else f" of {self.total}"
        return f"{self.size}{of} tensor{'s' if self.total > 1 else ''}"


def fold(names: Collection[str], every: Collection[str], limit: int = _LINES) -> dict[str, Fold]:
    """Dotted names by prefix: the shortest ones under which all of `every` are among `names`; if
    these are more than `limit`, shorter ones.
    """
    total, mine = _prefixes(every), _prefixes(names)
    depths = {name: _whole_depth(name, mine, total) for name in names}
    cut = max(depths.values(), default=0)
    while True:
        keys = {_prefix(name, min(depth, cut)): None for name, depth in depths.items()}
        if len(keys) <= limit or cut <= 1:
            return {key: Fold(mine[key], total[key]) for key in keys}
        cut -= 1


def _prefixes(names: Collection[str]) -> Counter[str]:
    """How many names there are under each prefix."""
    return Counter(_prefix(name, d + 1) for name in names for d in range(name.count(".") + 1))


def _prefix(name: str, depth: int) -> str:
    return ".".join(name.split(".")[:depth])


def _whole_depth(name: str, mine: Counter[str], total: Counter[str]) -> int:
    depth = 1
    while mine[_prefix(name, depth)] < total[_prefix(name, depth)]:
        depth += 1
    return depth
