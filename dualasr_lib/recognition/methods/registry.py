"""All search methods by name. To add one, write its file and name it here."""

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module

from dualasr_lib.recognition.methods.method import SearchMethod

__all__ = ["DEFAULT", "METHODS", "SECOND_PASS", "find", "listing", "names"]

_FILES = (
    "greedy",
    "one_best",
    "nbest",
    "nbest_oracle",
    "hlg",
    "nbest_lm",
    "lattice_lm",
    "attention",
    "transducer_greedy",
    "transducer_beam",
    "fast_beam",
    "rescore",
)


def _load(file: str) -> SearchMethod:
    found = import_module(f"dualasr_lib.recognition.methods.{file}").METHOD
    assert isinstance(found, SearchMethod)
    return found


METHODS: dict[str, SearchMethod] = {method.name: method for method in map(_load, _FILES)}
"""Name -> method, in the order of the files."""
DEFAULT = "1best"
"""The method where nobody names one."""
SECOND_PASS = next(name for name, method in METHODS.items() if method.second_pass is not None)
"""The method that rewrites the sentences of a stream."""


def find(name: str) -> SearchMethod:
    """The method called `name`; ValueError if there is none."""
    if name not in METHODS:
        near = get_close_matches(name, list(METHODS), 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(METHODS)}"
        raise ValueError(f"there is no search method {name!r}; {hint}")
    return METHODS[name]


def names(has: Callable[[SearchMethod], bool] = lambda method: True) -> tuple[str, ...]:
    """The names of all methods of which `has` is true."""
    return tuple(name for name, method in METHODS.items() if has(method))


def listing(has: Callable[[SearchMethod], bool] = lambda method: True) -> str:
    """A line per method of which `has` is true: its name and what it does."""
    width = max(map(len, METHODS)) + 2
    return "\n".join(f"  {name:{width}}{METHODS[name].summary}" for name in names(has))
