"""verify_streaming: the one test that every streaming module must pass (the law of
dualasr_lib.model.zipformer.streaming).

Inputs are (N, T, C) frames; a window holds one chunk and the module's declared look-ahead.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dualasr_lib.core.tree import leaves, split, stack

__all__ = ["Module", "run_chunks", "verify_streaming"]


class Module(NamedTuple):
    """A streaming module as the contract sees it."""

    forward: Callable[[Tensor], Tensor]  # (N, T, C) -> (N, T', C'), the whole at once
    step: Callable[
        [Tensor, Any], tuple[Tensor, Any]
    ]  # (N, chunk + lookahead, C) -> (N, chunk', C')
    init_state: Callable[[int], Any]
    chunk: int  # new frames per step
    lookahead: int = 0


def run_chunks(module: Module, x: Tensor, state: Any, first: int, last: int) -> tuple[Tensor, Any]:
    """Outputs of the chunks [first, last) of x, and the state after them."""
    outputs = []
    for k in range(first, last):
        window = x[:, k * module.chunk : (k + 1) * module.chunk + module.lookahead]
        y, state = module.step(window, state)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


def _close(a: Tensor, b: Tensor, tolerance: float, what: str) -> None:
    torch.testing.assert_close(
        a, b, rtol=tolerance, atol=tolerance, msg=lambda text: f"{what}: {text}"
    )


@torch.no_grad()
def verify_streaming(module: Module, x: Tensor, tolerance: float = 1e-5) -> None:
    """x: (N, chunks * chunk + lookahead, C), N >= 2, at least 4 chunks."""
    batch, total = x.shape[0], (x.shape[1] - module.lookahead) // module.chunk
    assert batch >= 2 and total >= 4
    start = module.init_state(batch)
    whole = module.forward(x)
    y, end = run_chunks(module, x, start, 0, total)
    _close(y, whole, tolerance, "chunks differ from the whole")
    _check_state(start, end, batch)
    per_chunk = y.shape[1] // total

    once = module.step(x[:, : module.chunk + module.lookahead], start)
    again = module.step(x[:, : module.chunk + module.lookahead], start)
    _close(once[0], again[0], 0.0, "step changed the state it was given")

    for i in range(batch):
        alone, _ = run_chunks(module, x[i : i + 1], module.init_state(1), 0, total)
        _close(alone, whole[i : i + 1], tolerance, "streams of a batch influence each other")

    half = total // 2
    _, old = run_chunks(module, x[:1], module.init_state(1), 0, half)
    mixed = stack([old, module.init_state(1)])
    windows = torch.cat([
        x[:1, half * module.chunk : (half + 1) * module.chunk + module.lookahead],
        x[1:2, : module.chunk + module.lookahead],
    ])  # fmt: skip
    together, mixed = module.step(windows, mixed)
    _close(
        together[:1],
        whole[:1, half * per_chunk : (half + 1) * per_chunk],
        tolerance,
        "older stream",
    )
    _close(together[1:], whole[1:2, :per_chunk], tolerance, "stream that has just started")
    assert len(split(mixed)) == 2

    bad = x.clone()
    bad[0] = float("nan")
    _close(module.forward(bad)[1:], whole[1:], tolerance, "NaN in one stream reaches another")
    future = x.clone()
    future[:, half * module.chunk + module.lookahead :] += 100.0 * torch.randn_like(
        future[:, half * module.chunk + module.lookahead :]
    )
    changed = module.forward(future)[:, : half * per_chunk]
    _close(changed, whole[:, : half * per_chunk], tolerance, "the future reaches the past")


def _check_state(start: Any, end: Any, batch: int) -> None:
    for (name, a), (_, b) in zip(leaves(start), leaves(end)):
        assert a.shape == b.shape and a.dtype == b.dtype, f"state {name}: {a.shape} -> {b.shape}"
        assert a.shape[0] == batch, f"state {name} is not batch-first: {a.shape}"
