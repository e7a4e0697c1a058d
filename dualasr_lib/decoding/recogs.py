"""`recogs-<split>.txt`: reference and hypothesis of each utterance, in icefall's format.

Two lines per utterance, as Python lists of units (characters or words):

    id:<TAB>ref=['あ', 'い']
    id:<TAB>hyp=['あ']
"""

import ast
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from dualasr_lib.core.files import AnyPath
from dualasr_lib.core.program import what_is_wrong

__all__ = ["Recognised", "format_recogs", "read_recogs"]

_LINE = re.compile(r"(.*):\t(ref|hyp)=(\[.*\])")


class Recognised(NamedTuple):
    """One utterance: its name and the units that are compared."""

    id: str
    ref: list[str]
    hyp: list[str]


def format_recogs(items: Iterable[Recognised]) -> str:
    """The text of the file, in the order of `items`."""
    return "".join(f"{id_}:\tref={ref}\n{id_}:\thyp={hyp}\n" for id_, ref, hyp in items)


def read_recogs(path: AnyPath) -> list[Recognised]:
    """The utterances of file `path`.

    Raises:
        ValueError: the file is missing, or a line is not as above; the message names file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} must be a recogs file, but does not exist")
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line]
    if len(lines) % 2:
        raise ValueError(f"{path} must have two lines per utterance, but has {len(lines)} lines")
    return [
        _utterance(path, number, *lines[number - 1 : number + 1])
        for number in range(1, len(lines), 2)
    ]


def _utterance(path: Path, number: int, ref_line: str, hyp_line: str) -> Recognised:
    ref, hyp = _LINE.fullmatch(ref_line), _LINE.fullmatch(hyp_line)
    if not ref or not hyp or (ref[2], hyp[2]) != ("ref", "hyp") or ref[1] != hyp[1]:
        raise ValueError(
            f"{path}:{number} must hold `id:<TAB>ref=[...]`, then `id:<TAB>hyp=[...]` of one id, "
            f"but holds {ref_line!r} and {hyp_line!r}"
        )
    return Recognised(ref[1], _units(path, number, ref[3]), _units(path, number + 1, hyp[3]))


def _units(path: Path, number: int, text: str) -> list[str]:
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError) as error:
        raise ValueError(
            f"{path}:{number} must hold a list of characters ({what_is_wrong(error)})"
        ) from None
    if not all(isinstance(item, str) for item in value):
        raise ValueError(f"{path}:{number} must hold a list of characters, but holds {text}")
    return list(value)
