"""Parameters that are not trained, chosen by prefixes of their names.

A module that is frozen as a whole acts as it does in recognition: it drops nothing, its
regularisers push nothing, its statistics stay. Left out: thawing in mid-run, which would need a
state of the optimiser that is not there.
"""

import difflib
from collections.abc import Iterable, Sequence

from torch import nn

__all__ = ["Frozen", "check_prefixes", "is_under"]

_NEAR = 0.4  # of difflib: what people write is often short of a part or two


class Frozen:
    """The part of a model that is not trained.

    Raises:
        ValueError: a prefix that is no name of a parameter or of a part of the model.
    """

    def __init__(self, model: nn.Module, prefixes: Sequence[str]) -> None:
        self._model = model
        self.prefixes = tuple(prefixes)
        names = [name for name, _ in model.named_parameters()]
        check_prefixes("training.freeze", prefixes, names)
        for name, parameter in model.named_parameters():
            if is_under(name, prefixes):
                parameter.requires_grad_(False)
        self._modules = [m for m in model.modules() if _is_whole(m)] if prefixes else []

    def train(self) -> None:
        """Puts the model into training mode, all but the modules that are frozen as a whole."""
        self._model.train()
        for module in self._modules:
            module.eval()

    def describe(self) -> str:
        """How much is frozen, in words."""
        values = [(p.numel(), p.requires_grad) for p in self._model.parameters()]
        frozen = sum(size for size, trained in values if not trained)
        total = sum(size for size, _ in values)
        return f"{frozen / 1e6:.1f} of {total / 1e6:.1f} M values: {', '.join(self.prefixes)}"


def is_under(name: str, prefixes: Iterable[str]) -> bool:
    """Whether a dotted name is one of `prefixes` or lies below one: "a.b" lies below "a"."""
    return any(f"{name}.".startswith(f"{prefix}.") for prefix in prefixes)


def check_prefixes(what: str, prefixes: Sequence[str], names: Sequence[str]) -> None:
    """ValueError unless something of `names` lies under each prefix; it names the nearest."""
    for prefix in prefixes:
        if not any(is_under(name, [prefix]) for name in names):
            raise ValueError(
                f"{what} must hold names of parameters or of parts of the model, but nothing is "
                f"called {prefix!r}{_nearest(prefix, names)}"
            )


def _nearest(prefix: str, names: Sequence[str]) -> str:
    parts: dict[str, None] = {}  # in order, each once
    for name in names:
        split = name.split(".")
        parts |= {".".join(split[: depth + 1]): None for depth in range(len(split))}
    ends = [part for part in parts if f".{part}".endswith(f".{prefix}")]
    near = ends[:1] or difflib.get_close_matches(prefix, list(parts), 1, _NEAR)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are {', '.join(part for part in parts if '.' not in part)}"


def _is_whole(module: nn.Module) -> bool:
    """Whether all its parameters are frozen; it has some."""
    parameters = list(module.parameters())
    return bool(parameters) and not any(p.requires_grad for p in parameters)
