"""A device that is not there: tensors that say they are on it, computed on the CPU, and every place
where a program would wait for it.

On a GPU the host runs ahead of the device until it asks for a value. Which operations ask can be
counted without one: `PretendDevice` is a dispatch mode under which a tensor may claim to be on
device "meta" while its numbers are real. It runs each operation on the CPU and notes the place of
those for which a GPU would have to be waited for.
"""

import traceback
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

__all__ = ["DEVICE", "PretendDevice", "moved", "no_autocast"]

DEVICE = torch.device("meta")
_PACKAGE = str(Path(__file__).resolve().parents[1] / "dualasr_lib")
_ASK = {
    "_local_scalar_dense", "is_nonzero", "item", "equal", "nonzero", "masked_select", "unique_dim",
    "_unique2", "unique_consecutive", "repeat_interleave", "allclose",
}  # fmt: skip
"""Operations whose result, or its size, is a number that the host needs."""


class _Claimed(Tensor):
    """Says that it is on `DEVICE`; its numbers are in `held`."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, real: Tensor) -> "_Claimed":
        claimed = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, real.shape, strides=real.stride(), storage_offset=real.storage_offset(),
            dtype=real.dtype, layout=real.layout, device=DEVICE, requires_grad=False,
        )  # fmt: skip
        claimed.held = real
        return claimed

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        raise AssertionError(f"{function} outside of PretendDevice")

    def tolist(self) -> Any:
        """torch's own refuses subclasses."""
        return self.cpu().tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"claimed({self.shape}, {self.dtype})"


class PretendDevice(TorchDispatchMode):
    """`waits` holds a line "file: function: operation" for each wait, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        there: list[bool] = []
        tree_map(lambda x: there.append(isinstance(x, _Claimed)), (args, kwargs))
        wanted = kwargs.get("device")
        onto = any(there) if wanted is None else torch.device(wanted).type == DEVICE.type
        if wanted is not None:
            kwargs["device"] = torch.device("cpu")
        name = function.__name__.split(".")[0]
        waits = self._waits(name, args, any(there), onto)
        self.waits += [f"{_place()}: {name}"] * waits
        result = function(*tree_map(_real, args), **tree_map(_real, kwargs))
        return self._result(function, args, kwargs, result, onto)

    def _waits(self, name: str, args: tuple[Any, ...], there: bool, onto: bool) -> int:
        """How often the host waits for what an operation needs."""
        claimed = [x for x in args if isinstance(x, _Claimed)]
        if name.startswith("_ctc_loss"):  # fetches each tensor of lengths by itself
            return sum(x.ndim == 1 and not x.is_floating_point() for x in claimed)
        if name == "index" and there:  # a mask's number of elements is the result's size
            return int(any(isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1]))
        if name == "copy_":
            return int(isinstance(args[1], _Claimed) and not isinstance(args[0], _Claimed))
        return int(there and (name in _ASK or not onto))

    @staticmethod
    def _result(
        function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any, onto: bool
    ) -> Any:
        """What was written into stays the same object; everything new is where it belongs."""
        if function.__name__.split(".")[0].endswith("_"):
            return args[0] if isinstance(args[0], Tensor) else None  # of _foreach_, a list
        if "out" in kwargs:
            return kwargs["out"]
        return tree_map(_claimed, result) if onto else result


def moved(model: nn.Module) -> None:
    """Lets all parameters and buffers claim to be on the device."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                module._parameters[name] = nn.Parameter(_Claimed(parameter.detach()))
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = _Claimed(buffer)


def no_autocast(kind: str, **options: Any) -> AbstractContextManager[Any]:
    """In place of torch.autocast, which does not know the device; for float32 only."""
    assert kind == DEVICE.type and options == {"enabled": False}
    return nullcontext()


def _real(x: Any) -> Any:
    return x.held if isinstance(x, _Claimed) else x


def _claimed(x: Any) -> Any:
    return _Claimed(x) if isinstance(x, Tensor) and not isinstance(x, _Claimed) else x


def _place() -> str:
    """The innermost function of the package that is running."""
    for frame in reversed(traceback.extract_stack()):
        if frame.filename.startswith(_PACKAGE):
            return f"{Path(frame.filename).name}: {frame.name}"
    return "elsewhere"
