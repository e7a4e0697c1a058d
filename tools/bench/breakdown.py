"""Forward and backward time of each part of a model, from one ordinary training step.

Every public method of a part is wrapped for the time of the measurement. Entering and leaving it
are marks on a time line; in the backward pass the marks are gradient hooks: the gradient of a
part's output arrives when its backward begins, that of its input when it has ended. Time between
two marks belongs to the part that was entered last, or to no part.

Gradient hooks cost next to nothing, but a part whose input needs no gradient (the front end) gets
all that follows its beginning, and parts that autograd interleaves share their time roughly.
"""

import functools
import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.timing import Work

__all__ = ["OTHER", "PartTimes", "break_down", "parts_of"]

OTHER = "(rest)"
Phase = Literal["forward", "backward"]
PartTimes = dict[str, dict[Phase, float]]
"""Part -> seconds of each phase: CPU time on a CPU, wall time on a GPU."""


def parts_of(model: nn.Module, opened: type[nn.Module]) -> dict[str, nn.Module]:
    """Parts by dotted name: modules are opened as long as something of type `opened` is inside,
    lists and dictionaries always.
    """
    found: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        lists = isinstance(child, (nn.ModuleDict, nn.ModuleList))
        if lists or any(isinstance(module, opened) for module in child.modules()):
            for key, part in parts_of(child, opened).items():
                # A list is often called as the module that holds it: `stacks.stacks.0`.
                found[key if key.startswith(f"{name}.") else f"{name}.{key}"] = part
        else:
            found[name] = child
    return found


def break_down(work: Work, device: torch.device, rounds: int) -> list[PartTimes]:
    """Times of all parts of `work`, one entry per round."""
    result = []
    for number in range(rounds):
        torch.manual_seed(number)
        work.clear()
        line = _TimeLine(device)
        with _watching(work.parts, line):
            line.begin("forward")
            output = work.forward()
            line.begin("backward")
            work.backward(output)
            line.end()
        result.append(line.spent)
    return result


class _TimeLine:
    def __init__(self, device: torch.device) -> None:
        self.spent: PartTimes = {}
        self._device = device
        self._phase: Phase = "forward"
        self._active: list[tuple[str, object]] = []
        self._since = 0.0

    def begin(self, phase: Phase) -> None:
        self.end()
        self._phase, self._since = phase, self._now()

    def end(self) -> None:
        if self._since:
            self._advance()
        self._active.clear()

    def enter(self, part: str, token: object) -> None:
        self._advance()
        if (part, token) not in self._active:
            self._active.append((part, token))

    def leave(self, part: str, token: object) -> None:
        self._advance()
        if (part, token) in self._active:
            self._active.remove((part, token))

    def inside(self, part: str) -> bool:
        return any(name == part for name, _ in self._active)

    def _advance(self) -> None:
        now = self._now()
        part = self._active[-1][0] if self._active else OTHER
        times = self.spent.setdefault(part, {"forward": 0.0, "backward": 0.0})
        times[self._phase] += now - self._since
        self._since = now

    def _now(self) -> float:
        if self._device.type != "cuda":
            return time.process_time()
        torch.cuda.synchronize(self._device)
        return time.perf_counter()


@contextmanager
def _watching(parts: Mapping[str, nn.Module], line: _TimeLine) -> Iterator[None]:
    replaced = []
    try:
        for part, module in parts.items():
            for name in _public_methods(type(module)):
                watched = _watched(getattr(module, name), part, line)
                module.__dict__[name] = watched  # hides the class's method
                replaced.append((module, name))
        yield
    finally:
        for module, name in replaced:
            del module.__dict__[name]


def _public_methods(cls: type[nn.Module]) -> set[str]:
    names = {"forward"}
    for base in cls.__mro__:
        if base.__module__.startswith("torch.") or base is object:
            continue
        for name, value in vars(base).items():
            if inspect.isfunction(value) and not name.startswith("_"):
                names.add(name)
    return names


def _watched(method: Callable[..., Any], part: str, line: _TimeLine) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        if line.inside(part):
            return method(*args, **kwargs)
        token = object()
        _hook(args, lambda: line.leave(part, token))
        line.enter(part, token)
        result = method(*args, **kwargs)
        line.leave(part, token)
        _hook(result, lambda: line.enter(part, token))
        return result

    return call


def _hook(values: Any, action: Callable[[], None]) -> None:
    """Calls `action` when the gradient of a tensor in `values` (one, or a tuple) is known."""
    for value in values if isinstance(values, tuple) else (values,):
        if isinstance(value, Tensor) and value.requires_grad:
            value.register_hook(lambda grad: action())
        elif isinstance(value, tuple):
            _hook(value, action)
