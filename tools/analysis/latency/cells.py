"""The cells of a latency curve: one branch with one chunk on one split, decoded and on disk.

A cell whose files are whole, and were made with the same weights, options and references, is read
instead of decoded. A fresh cell is read back, too, so that a run that was interrupted and went on
ends with the same table.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from analysis.latency.emissions import emissions_file, read_emissions, write_emissions
from dualasr_lib.decoding.hypothesis import Hypothesis
from dualasr_lib.decoding.results import Result, read_result
from dualasr_lib.decoding.summary import RunInfo, main_unit
from dualasr_lib.decoding.writer import result_files, write_results

__all__ = ["Cell", "Decode", "Made", "obtain"]

_LOG = logging.getLogger(__name__)


class Cell(NamedTuple):
    """A cell's results, read from its files."""

    result: Result
    hypotheses: list[Hypothesis]
    """Without paths."""


class Made(NamedTuple):
    """What decoding a cell gave."""

    hypotheses: Sequence[Hypothesis]
    summary: Mapping[str, Any]


class Decode(Protocol):
    """Decodes one split."""

    def __call__(self, info: RunInfo) -> Made:
        """The split, and what the summary is to say, are in `info`."""


def obtain(folder: Path, info: RunInfo, refs: Mapping[str, str], decode: Decode) -> Cell:
    """The cell of `folder` and `info.split`, decoded if it is not there yet.

    Args:
        info: all params, which a cell must have to be taken as it is.
        refs: reference text of each utterance, the same.
    """
    found = _finished(folder, info, refs)
    if found is not None:
        _LOG.info("reused %s %s: same model, options and references", folder.name, info.split)
        return found
    made = decode(info)
    # The summary is what makes a cell whole: it goes first and is written last.
    result_files(folder, info.split).summary.unlink(missing_ok=True)
    write_emissions(emissions_file(folder, info.split), made.hypotheses)
    write_results(folder, made.hypotheses, made.summary)
    return _read(folder, info.split)


def _finished(folder: Path, info: RunInfo, refs: Mapping[str, str]) -> Cell | None:
    """The cell if it is whole and fits."""
    summary = result_files(folder, info.split).summary
    if not summary.is_file():
        return None
    try:
        cell = _read(folder, info.split)
    except ValueError as error:
        _LOG.info("decoding again: %s", error)
        return None
    other = _differences(cell.result, info, refs)
    if other:
        _LOG.info("decoding again: %s was made with another %s", summary, ", ".join(other))
    return None if other else cell


def _read(folder: Path, split: str) -> Cell:
    result = read_result(result_files(folder, split).summary)
    return Cell(result, read_emissions(emissions_file(folder, split)))


def _differences(result: Result, info: RunInfo, refs: Mapping[str, str]) -> list[str]:
    """Names of what a finished cell has otherwise than asked for."""
    known = {"method": info.method, "data": info.scoring.data}
    wanted = json.loads(json.dumps({**info.params, **known}))
    params = {
        **result.summary.get("params", {}),
        **{name: result.summary.get(name) for name in known},
    }
    other = [name for name, value in wanted.items() if params.get(name, ...) != value]
    unit = main_unit(result.summary)
    same = result.refs == {id_: unit.join(unit.split(text)) for id_, text in refs.items()}
    return other if same else [*other, "set of utterances"]
