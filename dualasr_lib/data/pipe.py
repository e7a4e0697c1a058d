"""Audio that comes through a pipe: standard input, named pipes, process substitution.

libsndfile wants to seek. A wav file is read as it comes, so that a recording that is still going on
is recognised while it does: only its header is kept, for the few steps back that reading it takes.
Any other format is first copied to a temporary file, which needs its end and the room.
"""

import io
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["STANDARD_INPUT", "ForwardFile", "copied", "is_pipe", "open_pipe"]

STANDARD_INPUT = "-"
"""The name of standard input on a command line."""

_UNKNOWN_BYTES = 0x7FFF0000  # programs that write into a pipe promise about 2 or 4 GiB, or nothing
_MAX_HEADER = 1 << 20
_STDIN_PATHS = (STANDARD_INPUT, "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")


def is_pipe(path: Path) -> bool:
    """Whether a path is no file that can be read again: standard input or a pipe.

    Raises:
        ValueError: standard input that is a terminal, or another kind of device.
        OSError: the path cannot be looked at.
    """
    if str(path) in _STDIN_PATHS:
        if sys.stdin is None or sys.stdin.closed:
            raise ValueError("standard input is closed: there is no audio")
        mode = os.fstat(_stdin()).st_mode
        if os.isatty(_stdin()):
            raise ValueError("standard input is a terminal: pipe audio into it, or name a file")
        name = "standard input"
    else:
        mode, name = path.stat().st_mode, str(path)
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise ValueError(f"{name}: must be an audio file or a pipe, but is a device")
    return str(path) == STANDARD_INPUT or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def open_pipe(path: Path) -> "ForwardFile":
    """The bytes of a pipe, from where it stands."""
    if str(path) in _STDIN_PATHS:
        return ForwardFile(open(_stdin(), "rb", buffering=0, closefd=False))
    return ForwardFile(open(path, "rb", buffering=0))


def copied(pipe: "ForwardFile") -> Any:
    """All that comes through it as a `NamedTemporaryFile`, which is there as long as the result."""
    copy = tempfile.NamedTemporaryFile(prefix="dualasr-pipe-")  # noqa: SIM115  (the caller's)
    while block := pipe.read(1 << 20):
        copy.write(block)
    copy.flush()
    return copy


def _stdin() -> int:
    return sys.stdin.fileno()


class ForwardFile(io.RawIOBase):
    """A binary file over one that cannot seek. Until `go_on` all that was read is kept, and can be
    read again; from then on it only goes forward. Its end is not known before it comes.
    """

    def __init__(self, source: BinaryIO | io.RawIOBase) -> None:
        self._source = source
        self._kept = bytearray()
        self._kept_start = 0
        """Position of the first byte kept."""
        self._keeps = True
        self._position = 0
        self._length = 0
        """What whoever asks for the end is told."""
        self.is_endless = False
        """Whether its header does not know how long it is."""

    def begins_as_wav(self) -> bool:
        """Whether it can be read as it comes; looks at its header, up to the samples."""
        if not self._fill(12) or self._kept[:4] != b"RIFF" or self._kept[8:12] != b"WAVE":
            return False
        position = 12
        while position < _MAX_HEADER and self._fill(position + 8):
            size = int.from_bytes(self._kept[position + 4 : position + 8], "little")
            if self._kept[position : position + 4] == b"data":
                if not size and self._fill(position + 9):  # 0 stands for "unknown"
                    size = 0xFFFFFFFF
                    self._kept[position + 4 : position + 8] = size.to_bytes(4, "little")
                self.is_endless = size >= _UNKNOWN_BYTES
                self._length = position + 8 + size
                return True
            position += 8 + size + size % 2
        return False

    @property
    def is_empty(self) -> bool:
        """Whether nothing comes."""
        return not self._fill(1)

    def go_on(self) -> None:
        """What was read is read."""
        self._keeps = False

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """As far as it must be."""
        return True

    def tell(self) -> int:
        """The position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Anywhere; whether there is something shows when it is read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer unless the end comes first."""
        begin = self._position - self._kept_start
        if begin < 0:
            raise OSError("a pipe cannot be read again")
        self._fill(begin + len(buffer))
        data = self._kept[begin : begin + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        if not self._keeps:
            passed = min(len(self._kept), self._position - self._kept_start)
            del self._kept[:passed]
            self._kept_start += passed
        return len(data)

    def _fill(self, size: int) -> bool:
        """Reads until `size` bytes are kept; whether they are."""
        while len(self._kept) < size:
            block = self._source.read(min(1 << 16, size - len(self._kept)))
            if not block:
                return False
            self._kept += block
        return True
