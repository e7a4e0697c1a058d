"""The log of a run: TensorBoard for the eye, `log.jsonl` (one JSON object a line) for programs.

A resumed run continues both without a point lost or doubled: lines written after the checkpoint
are cut off (the checkpoint knows how many lines there were), and TensorBoard is told to drop later
points. The only module that knows TensorBoard.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from torch.utils.tensorboard import SummaryWriter

from dualasr_lib.core.picture import Picture
from dualasr_lib.training.drawing import drawn
from dualasr_lib.training.log_names import description

__all__ = ["Logbook", "LogbookError"]


class LogbookError(ValueError):
    """The log could not be written; the message names the file."""


class Logbook:
    """Writes points into `directory`; does nothing where `enabled` is false (other ranks)."""

    def __init__(
        self,
        directory: Path,
        step: int = 0,
        num_lines: int = 0,
        *,
        descriptions: Mapping[str, str] = MappingProxyType({}),
        enabled: bool = True,
    ) -> None:
        """Goes on after `step` with the first `num_lines` lines of the old log.

        Args:
            descriptions: name or pattern of names -> what TensorBoard says of the value.
        """
        self._enabled = enabled
        self._descriptions = descriptions
        self._described: set[str] = set()
        self._path = directory / "log.jsonl"
        self._board_path = directory / "tensorboard"
        self.num_lines = 0
        if enabled:
            directory.mkdir(parents=True, exist_ok=True)
            self.num_lines = _cut(self._path, num_lines)
            self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 (see __exit__)
            self._board = _open_board(self._board_path, step)

    def __enter__(self) -> "Logbook":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._enabled:
            return
        try:
            self.flush()
            self._file.close()
            self._board.close()
        except (LogbookError, OSError):
            if error is None:  # else that error comes first: both say that the disk is full
                raise

    def point(
        self,
        step: int,
        scalars: Mapping[str, float],
        texts: Mapping[str, str] = MappingProxyType({}),
        images: Mapping[str, Picture] = MappingProxyType({}),
    ) -> None:
        """Logs values and texts under their names (`train/loss`) at `step`.

        Args:
            images: they are drawn, and go to TensorBoard only.

        Raises:
            LogbookError: the disk is full.
        """
        if not self._enabled:
            return
        self._write({"step": step, **scalars, **texts})
        with _writing(self._board_path):
            for name, value in scalars.items():
                self._add_scalar(name, value, step)
            for name, text in texts.items():
                self._board.add_text(name, text, step)
            for name, image in images.items():
                self._board.add_image(name, drawn(image), step, dataformats="HWC")

    def event(self, step: int, kind: str, **details: Any) -> None:
        """Logs that something happened at `step`, in `log.jsonl` only.

        Raises:
            LogbookError: the disk is full.
        """
        if self._enabled:
            self._write({"step": step, "event": kind, **details})

    def flush(self) -> None:
        """Brings all points to the disk; called before a checkpoint counts them.

        Raises:
            LogbookError: the disk is full.
        """
        if not self._enabled:
            return
        with _writing(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
        with _writing(self._board_path):
            self._board.flush()

    def _add_scalar(self, name: str, value: float, step: int) -> None:
        """With its description, the first time: TensorBoard keeps that of a name's first point."""
        said = "" if name in self._described else description(name, self._descriptions)
        self._described.add(name)
        metadata = SummaryMetadata(summary_description=said) if said else None
        point = Summary.Value(tag=name, simple_value=value, metadata=metadata)
        self._board.file_writer.add_summary(Summary(value=[point]), step)

    def _write(self, record: Mapping[str, Any]) -> None:
        plain = {name: _json_value(value) for name, value in record.items()}
        with _writing(self._path):
            self._file.write(json.dumps(plain, ensure_ascii=False) + "\n")
        self.num_lines += 1


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Inside, an OSError becomes a `LogbookError` that names `path`."""
    try:
        yield
    except OSError as problem:
        text = f"cannot write the log {path}: {problem.strerror or problem}"
        raise LogbookError(text) from problem


def _open_board(directory: Path, step: int) -> Any:
    return SummaryWriter(str(directory), purge_step=step + 1)


def _json_value(value: Any) -> Any:
    """JSON has no nan and no inf: they become null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cut(path: Path, num_lines: int) -> int:
    """Keeps the first `num_lines` lines of `path` (a killed run wrote more); how many there are."""
    if not path.exists():
        return 0
    with open(path, "rb+") as file:
        kept = sum(1 for _ in range(num_lines) if file.readline())
        file.truncate()
    return kept
