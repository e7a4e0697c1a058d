"""What a search method is: its name, its options, what it needs, and how its searches are built.

Nothing heavy is imported here or at the top of a method's file, so that programs can list methods
and check options at once; builders import what they use.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from dualasr_lib.core.config import from_dict, override, to_dict
from dualasr_lib.metrics.units import CHARACTER, Unit

if TYPE_CHECKING:
    from torch import Tensor

    from dualasr_lib.decoding.contract import OnlineSearch
    from dualasr_lib.decoding.offline import Detokenise, OfflineSearch
    from dualasr_lib.decoding.rescoring import Propose, Scales
    from dualasr_lib.recognition.language import Language

__all__ = [
    "Ingredients",
    "NoOptions",
    "OfflineMethod",
    "OnlineMethod",
    "Searcher",
    "SearchMethod",
    "StreamSearch",
    "WholeSearch",
    "direct",
    "read_options",
]

C = TypeVar("C")


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """Options of a method that has none."""


def _no_tables(head: str) -> "Mapping[str, Tensor]":
    raise ValueError(f"this search needs the weights of the {head} head, but has no model")


class Ingredients(NamedTuple):
    """What a builder may use beside its options."""

    language: "Language"
    detokenise: "Detokenise"
    vocab_size: int
    unit: Unit = CHARACTER
    """What errors are counted in."""
    tables: "Callable[[str], Mapping[str, Tensor]]" = _no_tables
    """Head of the branch -> the weights that searches need of it (`model.heads.contract`)."""


class Searcher(NamedTuple):
    """A search of whole utterances, its options bound. It hears all that a branch has to say
    (`Heard`), not only the scores of one head.
    """

    search: "Callable[[Scales], OfflineSearch]"
    """The search with the scales that are given to it; methods without scales ignore them."""
    propose: "Propose | None" = None
    """What tuning needs."""


def direct(search: "OfflineSearch") -> Searcher:
    """A search that weighs nothing."""
    return Searcher(lambda scales: search)


@dataclass(frozen=True, kw_only=True)
class WholeSearch:
    """How a method searches whole utterances."""

    options: type[Any]
    """Dataclass of its options, which users give as `key=value`."""
    build: Callable[[Any, Ingredients], Searcher]
    """(options, ingredients) -> the search."""


@dataclass(frozen=True, kw_only=True)
class StreamSearch:
    """How a method searches running streams."""

    options: Callable[[Sequence[str]], type[Any]]
    """What the user gave -> dataclass of the options; one class, unless an engine is chosen."""
    build: "Callable[[Any, Ingredients, Scales], OnlineSearch]"
    """(options, ingredients, scales) -> the search."""


class OfflineMethod(NamedTuple):
    """A search of whole utterances, ready to be tuned or used."""

    params: dict[str, Any]
    """All its options, defaults included, and its language model."""
    search: "Callable[[Scales], OfflineSearch]"
    propose: "Propose | None" = None
    """What `tune` needs; None if nothing is to be tuned."""
    grid: "tuple[Scales, ...]" = ()
    """The scales to try."""
    axes: Mapping[str, tuple[float, ...]] = {}
    """Score -> weights to try, one score after the other; empty: the whole grid is tried."""

    @property
    def weighs(self) -> list[str]:
        """The scores whose weights are to be chosen."""
        listed = dict.fromkeys(name for point in self.grid for name in point)
        return [name for name in listed if len({point.weight(name) for point in self.grid}) > 1]


class OnlineMethod(NamedTuple):
    """A search of running streams."""

    params: dict[str, Any]
    search: "OnlineSearch"


@dataclass(frozen=True, kw_only=True)
class SearchMethod:
    """A search method: all that programs, tables and reports need to know of it."""

    name: str
    summary: str
    """A few words, for --help."""
    heads: tuple[str, ...] = ("ctc",)
    """Heads that a branch must have for it; the first one is what it searches."""
    lm: Literal["none", "optional", "required"] = "none"
    """Whether it takes a language model."""
    lm_order: Literal["lowest", "highest"] = "highest"
    """Which n-gram of DATA/lang it takes if the user names none."""
    grid: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Scores that it weighs beside CTC's -> weights that tuning tries; `lm` only if it has one."""
    by_coordinates: bool = False
    """Whether these are tuned one after the other, because there are too many for all together."""
    lists_texts: bool = False
    """Whether it makes n-best lists."""
    second_pass: tuple[str, ...] | None = None
    """Options with which it rewrites sentences of a stream; None: it cannot."""
    whole: WholeSearch
    """On whole utterances."""
    stream: StreamSearch | None = None
    """On running streams; None: it cannot."""
    fitted: "Callable[[SearchMethod, Any], SearchMethod] | None" = None
    """(the method, options) -> the same with the heads and scores that those options mean; None:
    options change neither."""

    def of(self, options: Sequence[str]) -> "SearchMethod":
        """The method with these options of `whole`; ValueError for what it does not know."""
        if self.fitted is None:
            return self
        return self.fitted(self, self.whole_options(options))

    def whole_options(self, options: Sequence[str]) -> Any:
        """Options of `whole` from `key=value`; ValueError for what it does not know."""
        return self._read(self.whole.options, options)

    def stream_options(self, options: Sequence[str]) -> Any:
        """Options of `stream`, likewise; ValueError, too, if the method cannot search streams."""
        return self._read(self._stream().options(options), options)

    def offline(self, options: Sequence[str], given: Ingredients) -> OfflineMethod:
        """The search of whole utterances.

        Raises:
            ValueError: an unknown option, one of the wrong type, or a language model is missing.
        """
        config, fitted = self.whole_options(options), self.of(options)
        if self.lm == "required":
            given.language.required(self.name)
        searcher = self.whole.build(config, given)
        params = {**to_dict(config), **given.language.params}
        axes = fitted._axes(with_lm=given.language.lm is not None)
        grid = _points(axes)
        propose = searcher.propose if grid else None
        return OfflineMethod(
            params, searcher.search, propose, grid, axes if self.by_coordinates else {}
        )

    def online(self, options: Sequence[str], given: Ingredients, scales: "Scales") -> OnlineMethod:
        """The search of running streams; errors as for `offline`."""
        config = self.stream_options(options)
        if self.lm == "required":
            given.language.required(self.name)
        search = self._stream().build(config, given, scales)
        return OnlineMethod({**to_dict(config), **given.language.params}, search)

    def check_scales(self, names: Sequence[str], with_lm: bool) -> None:
        """ValueError unless `names` are just the scores that it weighs."""
        needed = [name for name in self.grid if name != "lm" or with_lm]
        if not needed:
            raise ValueError(f"method {self.name} weighs no scores, so it takes no scales")
        if set(names) != set(needed):
            raise ValueError(
                f"scales must be given for {', '.join(needed)}, which method {self.name} weighs, "
                f"but are for {', '.join(sorted(names)) or 'nothing'}"
            )

    def _axes(self, with_lm: bool) -> dict[str, tuple[float, ...]]:
        return {name: v for name, v in self.grid.items() if name != "lm" or with_lm}

    def _read(self, cls: type[C], options: Sequence[str]) -> C:
        for name in self.grid:
            if any(option.startswith(f"{name}_scale=") for option in options):
                raise ValueError(
                    f"options of method {self.name}: {name}_scale is one of the scales, give "
                    f"--scales {name}="
                )
        return read_options(cls, options, self.name)

    def _stream(self) -> StreamSearch:
        if self.stream is None:
            raise ValueError(f"method {self.name} needs whole utterances, it searches no streams")
        return self.stream


def _points(axes: Mapping[str, tuple[float, ...]]) -> "tuple[Scales, ...]":
    from dualasr_lib.decoding.rescoring import Scales

    points = product(*axes.values()) if axes else ()
    return tuple(Scales(**dict(zip(axes, point))) for point in points)


def read_options(cls: type[C], options: Sequence[str], method: str) -> C:
    """`key=value` -> dataclass `cls`; a ValueError names the method."""
    try:
        return from_dict(cls, override({}, options))
    except ValueError as error:
        raise ValueError(f"options of method {method}: {error}") from None
