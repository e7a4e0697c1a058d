"""The options of the decoding programs: one list, from which each program takes its own. Imports
nothing heavy, so that `--help` and an error in an option come at once.
"""

import argparse
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dualasr_lib import __version__
from dualasr_lib.core.files import output_folder
from dualasr_lib.recognition.decode_config import DecodeConfig, parse_scales
from dualasr_lib.recognition.default import default_bundle
from dualasr_lib.recognition.methods import registry

__all__ = ["ALL", "Program", "add_options", "decode_config", "parser"]

ALL = "all"
"""In place of a method: every one."""

Program = Literal["decode", "stream", "curve", "transcribe"]
"""Whole utterances of a data folder, the same as simulated streams, streams by chunks of several
lengths, or audio files.
"""

_ALL: tuple[Program, ...] = ("decode", "stream", "curve", "transcribe")
_DATA: tuple[Program, ...] = ("decode", "stream", "curve")
_MODEL = ("exp_dir", "bundle", "data_dir")
"""What names a model, or half of one."""
_SEVERAL_METHODS: tuple[Program, ...] = ("decode", "stream")
_TWO_PASS: tuple[Program, ...] = ("stream", "transcribe")


class _Option(NamedTuple):
    """One option."""

    name: str
    """As users write it; without its dashes the field of `DecodeConfig`, if there is one."""
    help: str
    programs: tuple[Program, ...] = _ALL
    kind: type[Any] = str
    """What its value is; bool: a flag."""
    many: bool = False
    """It takes several values."""
    required: bool = False
    default: Any = None
    metavar: str | None = None
    choices: tuple[str, ...] | None = None


_PAIR = "KEY=VALUE"
_OPTIONS = (
    _Option("--exp-dir", "what train.py wrote", kind=Path),
    _Option("--bundle", "a model in one file, in place of --exp-dir", _DATA, Path, metavar="FILE"),
    _Option("--bundle", "a model in one file, in place of --exp-dir;\n"
        "or a folder of dualasr-export --format runtime;\n"
        "default: the model that comes with the package", ("transcribe",), Path, metavar="FILE"),
    _Option("--data-dir", "what prepare.sh wrote", _DATA, Path, required=True),
    _Option("--data-dir", "what prepare.sh wrote; a bundle needs none", ("transcribe",), Path),
    _Option("--out-dir", "where results go and tuned scales are kept;\n"
        "default: EXP; a bundle needs it", _DATA, Path),
    _Option("--split", "eval1 eval2 eval3 valid ...", _DATA, many=True, required=True),
    _Option("--branch", "which half of the model listens", ("decode",), many=True, required=True,
        choices=("streaming", "full")),
    _Option("--beam", "options of the search", many=True, metavar=_PAIR),
    _Option("--lm", "n-gram of tokens, or with --lexicon of words;\nfor both passes; "
        "default: DATA/lang's, of lowest order for hlg, else highest", kind=Path, metavar="ARPA"),
    _Option("--lexicon", "words and their tokens, e.g. DATA/lang's", kind=Path, metavar="FILE"),
    _Option("--scales", "weights of just the scores that the method weighs,\ne.g. lm=0.3; "
        "default: the bundle's, or tuned on valid, kept in EXP/scales", many=True,
        metavar="NAME=VALUE"),
    _Option("--two-pass", "full context rewrites each sentence at its end", _TWO_PASS, bool),
    _Option("--second-method", "its search method; default: " + registry.SECOND_PASS, _TWO_PASS,
        default=registry.SECOND_PASS,
        choices=registry.names(lambda method: method.second_pass is not None)),
    _Option("--second-beam", "options of the second pass, e.g. num_paths=20", _TWO_PASS,
        many=True, metavar=_PAIR),
    _Option("--second-scales", "its scales, e.g. attention=1; default: as for --scales", _TWO_PASS,
        many=True, metavar="NAME=VALUE"),
    _Option("--second-budget-ms", "its time from a sentence's end on; what does not fit is left\n"
        "out and counted; default: as long as it takes", _TWO_PASS, float),
    _Option("--epoch", "checkpoint of EXP; default: the newest", kind=int),
    _Option("--avg", "mean of its last K epochs and what came after; default: none",
        kind=int, default=0),
    _Option("--chunk-ms", "chunk of the streaming stacks; default: the config's", kind=int),
    _Option("--left-ms", "their left context; default: the config's", kind=int),
    _Option("--num-streams", "streams in parallel; default: 8", ("stream", "curve"), int,
        default=8),
    _Option("--realtime", "feed audio at its natural speed", ("stream",), bool),
    _Option("--show", "print partial texts as they come", ("stream",), bool),
    _Option("--write-nbest", "also nbest-<split>.json; for methods that list texts:\n"
        + ", ".join(registry.names(lambda method: method.lists_texts)), ("decode",), bool),
    _Option("--device", "auto, cpu or cuda", default="auto", choices=("auto", "cpu", "cuda")),
)  # fmt: skip


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help has the lines of `description` as they are; it knows --version."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("--version", action="version", version=f"dualasr {__version__}")
    return made


def add_options(into: argparse.ArgumentParser, program: Program) -> None:
    """The options of `program`; several values of one option stand behind it, or, for
    `transcribe`, where files follow, it is given several times.
    """
    several: dict[str, Any] = {"nargs": "+", "action": "extend"}
    if program == "transcribe":
        several = {"action": "append"}
    methods = _names(program)
    one_after_the_other = program in _SEVERAL_METHODS
    into.add_argument(
        "--method", choices=(*methods, *((ALL,) if one_after_the_other else ())),
        nargs="+" if one_after_the_other else None,
        help=f"search method; default: {registry.DEFAULT}"
        + ("; all: each that the model has the heads for" if one_after_the_other else ""),
    )  # fmt: skip
    for option in _OPTIONS:
        if program not in option.programs:
            continue
        if option.kind is bool:
            into.add_argument(option.name, action="store_true", help=option.help)
            continue
        into.add_argument(
            option.name, type=option.kind, help=option.help, required=option.required,
            default=option.default, metavar=option.metavar, choices=option.choices,
            **(several if option.many else {}),
        )  # fmt: skip


def decode_config(arguments: argparse.Namespace, program: Program) -> DecodeConfig:
    """What the options ask for.

    Audio files are heard with the model that comes with the package if no other is named.

    Raises:
        ValueError: as `DecodeConfig`, `parse_scales` and `default_bundle`, or results would go
            nowhere.
    """
    values: Mapping[str, Any] = vars(arguments)
    ours = {_field(option) for option in _OPTIONS if program in option.programs}
    named = {field.name for field in fields(DecodeConfig)} & ours
    given = {name: values[name] for name in named}
    methods = values["method"] or (registry.DEFAULT,)
    methods = (methods,) if isinstance(methods, str) else tuple(dict.fromkeys(methods))
    if program == "transcribe" and not any(given[name] for name in _MODEL):
        given["bundle"] = default_bundle()
    given["every"] = ALL in methods
    given["methods"] = _names(program) if ALL in methods else methods
    for name in ("beam", "second_beam"):
        given[name] = tuple(values.get(name) or ())
    for name in ("scales", "second_scales"):
        given[name] = parse_scales(values.get(name))
    config = DecodeConfig(**given, streams=program != "decode")
    if program in _DATA:
        output_folder(config.results_dir)  # an error, if it has to be, before anything is loaded
    return config


def _field(option: _Option) -> str:
    return option.name.removeprefix("--").replace("-", "_")


def _names(program: Program) -> tuple[str, ...]:
    """The methods that a program can run."""
    return registry.names(lambda method: program == "decode" or method.stream is not None)
