"""The options of every prepare.sh: fields of a dataclass, from which the command line is made.

A corpus adds its own in a subclass. `stage` of a field says which stage's result it decides: that
stage's marker holds the value, and another value is refused until the stage is made again.
"""

import argparse
import dataclasses
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from dualasr_lib.core.files import output_folder
from dualasr_lib.data.pieces import PieceType

__all__ = ["Options", "Wanted", "option", "read_options"]

O = TypeVar("O", bound="Options")  # noqa: E741
NUM_STAGES = 7


def option(
    default: Any = dataclasses.MISSING, *, what: str, metavar: str | None = None, stage: int = 0
) -> Any:
    """A field of `Options`; without a default it must be given.

    Args:
        what: the line of --help.
        metavar: how --help calls the value.
        stage: number of the stage whose result it decides; 0 for none.
    """
    told = {"what": what, "metavar": metavar, "stage": stage}
    return dataclasses.field(default=default, metadata=told)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every prepare.sh is called with."""

    data_dir: Path = option(what="where everything is written")
    dry_run: bool = option(
        False, what="report what training would see, with all doubts, and write nothing else"
    )
    allow_bad: int = option(0, metavar="N", what="leave out up to N defective recordings")
    jobs: int = option(2, metavar="N", what="processes (default 2)")
    noise_dir: Path | None = option(
        None, metavar="DIR", what="noise to mix in when training, e.g. musan/noise", stage=4
    )
    features: Literal["stored", "none"] = option(
        "stored", what="none: training and decoding compute them (data.features)", stage=4
    )
    shard: str = option(
        "",
        metavar="I/N",
        what="stage 4 on several machines: compute part I of N of the features (I from 1) only",
    )
    vocab_type: PieceType = option("char", what="kind of tokens", stage=5)
    vocab_size: int = option(500, metavar="V", what="tokens, for unigram and bpe")
    order: int = option(3, metavar="N", what="order of the n-grams (default 3)", stage=6)
    rescoring_order: int = option(
        5, metavar="N", what="order of a longer one of tokens (default 5)", stage=6
    )

    def __post_init__(self) -> None:
        for name, least in (("allow_bad", 0), ("jobs", 1), ("vocab_size", 1), ("order", 2)):
            if getattr(self, name) < least:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} must be at least {least}, is {getattr(self, name)}")
        if self.shares and self.features == "none":
            raise ValueError("--shard computes features, but there are none with --features none")
        if not self.order <= self.rescoring_order <= 5:
            raise ValueError(
                f"--rescoring-order must be at least --order ({self.order}) and at most 5,"
                f" is {self.rescoring_order}"
            )

    @property
    def shares(self) -> tuple[int, int] | None:
        """(number from 0, how many) of --shard; ValueError if it is none."""
        if not self.shard:
            return None
        number, _, count = self.shard.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise ValueError(f"--shard must be I/N with 1 <= I <= N, such as 2/4, is {self.shard}")
        return int(number) - 1, int(count)

    @property
    def source(self) -> Path | None:
        """The folder of the corpus; None if there is no such folder, or it must not move."""
        return None

    def of_stage(self, number: int) -> dict[str, Any]:
        """The options that decide the result of a stage, as plain values."""
        values: dict[str, Any] = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.metadata.get("stage") == number
        }
        if number == 5 and self.vocab_type != "char":
            values["vocab_size"] = self.vocab_size
        if self.noise_dir is None:
            values.pop("noise_dir", None)
        if self.features == "stored":
            values.pop("features", None)
        return {name: str(v) if isinstance(v, Path) else v for name, v in values.items()}


class Wanted(typing.NamedTuple, typing.Generic[O]):
    """What the command line asks for."""

    options: O
    first: int
    """Number of the first stage to run."""
    last: int


def read_options(
    kind: type[O], description: str, arguments: Sequence[str] | None = None
) -> Wanted[O]:
    """Options of `kind` from a command line (default: the program's); paths become absolute.

    Raises:
        ValueError: a value that cannot be.
    """
    parser = argparse.ArgumentParser(prog="prepare.sh", description=description, allow_abbrev=False)
    base = {field.name for field in dataclasses.fields(Options)}
    hints = typing.get_type_hints(kind)
    fields = sorted(dataclasses.fields(kind), key=lambda field: field.name in base)
    for field in fields:  # the corpus's own options first
        _add(parser, field, hints[field.name])
    add = parser.add_argument
    add("--stage", type=int, default=1, metavar="A", help="first stage (default 1)")
    add("--stop-stage", type=int, default=NUM_STAGES, metavar="B",
        help=f"last stage (default {NUM_STAGES})")  # fmt: skip
    values = vars(parser.parse_args(arguments))
    first, last = values.pop("stage"), values.pop("stop_stage")
    if not 1 <= first <= last <= NUM_STAGES:
        raise ValueError(
            f"--stage and --stop-stage must be in 1..{NUM_STAGES}, are {first} and {last}"
        )
    output_folder(values["data_dir"])
    paths = {name: v.resolve() for name, v in values.items() if isinstance(v, Path)}
    return Wanted(kind(**values | paths), first, last)


def _add(parser: argparse.ArgumentParser, field: "dataclasses.Field[Any]", hint: Any) -> None:
    told: dict[str, Any] = {"help": field.metadata["what"]}
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = typing.get_args(hint)[0]
    if field.default is dataclasses.MISSING:
        told["required"] = True
    else:
        told["default"] = field.default
    if hint is bool:
        told["action"] = "store_true"
    elif typing.get_origin(hint) is Literal:
        told["choices"] = typing.get_args(hint)
    elif typing.get_origin(hint) is tuple:
        told |= {"type": typing.get_args(hint)[0], "nargs": "+"}
    else:
        told |= {"type": hint, "metavar": field.metadata["metavar"]}
    parser.add_argument(f"--{field.name.replace('_', '-')}", **told)
