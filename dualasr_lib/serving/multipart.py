"""The file in a form (`multipart/form-data`, RFC 7578), as `curl -F file=@talk.mp3` sends it."""

import mmap
import re
import tempfile
from typing import IO

__all__ = ["boundary", "file_of_form"]

_MOST_PARTS, _MOST_HEADER_BYTES, _COPIED = 16, 4096, 2**20
_LINE = b"\r\n"


def boundary(content_type: str) -> bytes | None:
    """What separates the parts; None: the body is no form.

    Raises:
        ValueError: a form without it.
    """
    if not content_type.lower().startswith("multipart/form-data"):
        return None
    found = re.search(r'boundary="?([\w\'()+,./:=? -]{1,70})"?\s*(?:;|$)', content_type, re.ASCII)
    if found is None:
        raise ValueError("a form must say its boundary")
    return found[1].encode()


def file_of_form(body: IO[bytes], separator: bytes) -> IO[bytes]:
    """The first part that has a file's name, in a file without a name, at its beginning.

    Args:
        body: a file that is not empty.
        separator: as `boundary`.

    Raises:
        ValueError: no such part, one without end, or an empty one.
    """
    line = b"--" + separator
    with mmap.mmap(body.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = 0 if data[: len(line)] == line else data.find(_LINE + line) + len(_LINE)
        for _ in range(_MOST_PARTS):
            at += len(line)
            head = data.find(2 * _LINE, at, at + _MOST_HEADER_BYTES)
            if data[at : at + len(_LINE)] != _LINE or head < 0:
                break
            start = head + 2 * len(_LINE)
            end = data.find(_LINE + line, start)
            if end < 0:
                raise ValueError("the form was cut off: its last part has no end")
            if b"filename=" in data[at:head].lower():
                if start == end:
                    raise ValueError("the form's file is empty")
                return _copied(data, start, end)
            at = end + len(_LINE)
    raise ValueError("the form must hold the recording as a file: curl -F file=@talk.mp3")


def _copied(data: mmap.mmap, start: int, end: int) -> IO[bytes]:
    file = tempfile.TemporaryFile(prefix="dualasr-")  # noqa: SIM115  (the caller's)
    for offset in range(start, end, _COPIED):
        file.write(data[offset : min(offset + _COPIED, end)])
    file.seek(0)
    return file
