"""Chains of emitted tokens that share their beginnings: how a running search remembers its texts.

A hypothesis holds the end of its chain; adding a token makes a new end and leaves all others as
they were. Cost per token does not depend on how long the stream has run, and chains that no
hypothesis holds any more are freed.
"""

from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import NamedTuple

__all__ = ["Emitted", "Trace", "common_depth", "common_tokens", "emitted", "extended"]


class Trace(NamedTuple):
    """The end of a chain; None stands for the empty one."""

    parent: "Trace | None"
    token: int
    frame: int
    """Frame at which the token is emitted."""
    depth: int
    """Tokens in the chain."""


class Emitted(NamedTuple):
    """A chain read from its beginning."""

    tokens: tuple[int, ...]
    frames: tuple[int, ...]


def extended(trace: Trace | None, token: int, frame: int) -> Trace:
    """The chain with one more token."""
    return Trace(trace, token, frame, 1 if trace is None else trace.depth + 1)


def emitted(trace: Trace | None) -> Emitted:
    """Tokens and frames of a chain; time grows with its length."""
    tokens, frames = [], []
    while trace is not None:
        tokens.append(trace.token)
        frames.append(trace.frame)
        trace = trace.parent
    return Emitted(tuple(reversed(tokens)), tuple(reversed(frames)))


def common_depth(traces: Iterable[Trace | None]) -> int:
    """Tokens that all chains begin with and share (equal tokens of different making do not
    count); time grows with what they do not share.
    """
    ends = {id(trace): trace for trace in traces}
    while len(ends) > 1:
        deepest = max(0 if trace is None else trace.depth for trace in ends.values())
        ends = {
            id(trace): trace
            for trace in (
                end.parent if end is not None and end.depth == deepest else end
                for end in ends.values()
            )
        }
    only = next(iter(ends.values()), None)
    return 0 if only is None else only.depth


def common_tokens(traces: Sequence[Trace | None]) -> int:
    """Tokens that all chains begin with, whoever made them; time grows with what they do not
    share.
    """
    shared = common_depth(traces)
    tails = [_tail(trace, shared) for trace in traces]
    return shared + sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, zip(*tails)))


def _tail(trace: Trace | None, depth: int) -> list[int]:
    """The tokens of a chain beyond its first `depth`."""
    tokens = []
    while trace is not None and trace.depth > depth:
        tokens.append(trace.token)
        trace = trace.parent
    return tokens[::-1]
