"""verify_streaming: the one test that every streaming module must pass (the law of
dualasr_lib.model.zipformer.streaming).

Inputs are (N, T, C) frames; a window holds one chunk and the module's declared look-ahead.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from dualasr_lib.core.tree import leaves, split, stack

__all__ = ["Module", "attended", "convolved", "run_chunks", "verify_context", "verify_streaming"]


class Module(NamedTuple):
    """A streaming module as the contract sees it."""

    forward: Callable[[Tensor], Tensor]  # (N, T, C) -> (N, T', C'), the whole at once
    step: Callable[
        [Tensor, Any], tuple[Tensor, Any]
    ]  # (N, chunk + lookahead, C) -> (N, chunk', C')
    init_state: Callable[[int], Any]
    chunk: int  # new frames per step
    lookahead: int = 0
    weights: Sequence[Tensor] = ()  # gradients of which are compared, too
    several: bool = False  # whether a step takes several chunks at once; else it must refuse them


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


def verify_streaming(module: Module, x: Tensor, tolerance: float = 1e-5) -> None:
    """x: (N, chunks * chunk + lookahead, C), N >= 2, at least 4 chunks."""
    with torch.no_grad():
        _verify_outputs(module, x, tolerance)
        _verify_two_chunks(module, x, tolerance)
    _verify_gradients(module, x, tolerance)


def verify_context(module: Module, x: Tensor, heard: Tensor) -> None:
    """Output frames depend on exactly the frames of x (N, T, C) that `heard` (T', T) declares."""
    inputs = x.detach().clone().requires_grad_()
    y = module.forward(inputs)
    assert heard.shape == (y.shape[1], x.shape[1])
    weights = torch.randn_like(y)
    for frame in range(y.shape[1]):
        total = (weights[:, frame] * y[:, frame]).sum()
        (gradient,) = torch.autograd.grad(total, inputs, retain_graph=True)
        found = gradient.abs().sum(dim=(0, 2)) > 0
        early, late = (found & ~heard[frame]).nonzero(), (heard[frame] & ~found).nonzero()
        assert not len(early), f"frame {frame} hears {early.flatten().tolist()}: not declared"
        assert not len(late), f"frame {frame} does not hear {late.flatten().tolist()}: declared"


def attended(frames: int, chunk: int, left: int) -> Tensor:
    """(T, T) bool: frames of a chunk see the chunk and `left` frames, whole chunks, before it."""
    number = torch.arange(frames) // chunk
    behind = number[:, None] - number[None, :]
    return (behind >= 0) & (behind <= left // chunk)


def convolved(frames: int, chunk: int, kernel: int) -> Tensor:
    """(T, T) bool: half a kernel to either side, but not beyond the chunk."""
    index = torch.arange(frames)
    behind = index[:, None] - index[None, :]
    return (behind <= kernel // 2) & (behind >= -(kernel // 2)) & attended(frames, chunk, frames)


def _verify_two_chunks(module: Module, x: Tensor, tolerance: float) -> None:
    """From any state, two chunks at once equal one after the other; or they are refused."""
    _, state = run_chunks(module, x, module.init_state(len(x)), 0, 1)
    window = x[:, module.chunk : 3 * module.chunk + module.lookahead]
    if not module.several:
        with pytest.raises(ValueError, match="one chunk"):
            module.step(window, state)
        return
    one_by_one, end = run_chunks(module, x, state, 1, 3)
    at_once, same_end = module.step(window, state)
    _close(at_once, one_by_one, tolerance, "two chunks at once differ from one after the other")
    for (name, a), (_, b) in zip(leaves(end), leaves(same_end)):
        _close(b, a, tolerance, f"state {name} after two chunks at once")


def _verify_gradients(module: Module, x: Tensor, tolerance: float) -> None:
    """Those of steps are those of forward: for the input and for the weights."""
    total = (x.shape[1] - module.lookahead) // module.chunk
    found = []
    for whole in (True, False):
        inputs = x.detach().clone().requires_grad_()
        if whole:
            y = module.forward(inputs)
        else:
            y, _ = run_chunks(module, inputs, module.init_state(len(x)), 0, total)
        weights = torch.linspace(-1.0, 1.0, y[0].numel()).reshape(y[0].shape)
        wanted = [inputs, *module.weights]
        gradients = torch.autograd.grad((weights * y).sum(), wanted, allow_unused=True)
        found.append(gradients)
    assert found[0][0].abs().max() > 0, "no gradient reaches the input"
    for number, (of_forward, of_steps) in enumerate(zip(*found)):
        name = f"weight {number - 1}" if number else "the input"
        assert (of_forward is None) == (of_steps is None), f"gradient of {name}"
        if of_forward is not None:
            most = float(of_forward.abs().max()) or 1.0
            _close(of_steps / most, of_forward / most, 10 * tolerance, f"gradient of {name}")


def _verify_outputs(module: Module, x: Tensor, tolerance: float) -> None:
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
