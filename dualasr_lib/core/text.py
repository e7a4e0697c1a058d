"""Text files that people edit: gzip or plain, with or without a byte order mark, any white space.

Editors put a byte order mark before the first word, or a full-width space between two, where
nobody sees them. A reader that takes them for a part of a word loses that word in silence; these
functions take them for what was meant, or say what is wrong and where. Left out: what the lines
mean.
"""

import gzip
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator

from dualasr_lib.core.files import AnyPath

__all__ = ["fields", "read_lines", "read_text", "same_text"]

_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_OTHER_SPACE = re.compile(
    rb"\xe3\x80\x80|\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f"
)
"""White space of Unicode beyond ASCII, in UTF-8."""
_NO_WIDTH = re.compile(rb"\xe2\x80\x8b|\xe2\x81\xa0|\xef\xbb\xbf")
"""Spaces of no width, word joiners and stray byte order marks."""


def read_lines(path: AnyPath) -> Iterator[bytes]:
    """The lines of a text file in UTF-8, with their ends, without a byte order mark; gzip files,
    known by their content, are unpacked.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is UTF-16, or a gzip file that is cut short or damaged.
    """
    with open(path, "rb") as raw:
        start = raw.read(2)
        raw.seek(0)
        if start in _UTF16:
            raise ValueError(f"{path}: must be a text file in UTF-8, but is in UTF-16")
        if start != _GZIP:
            yield from _without_bom(raw)
            return
        with gzip.open(raw) as unpacked:
            lines = _without_bom(unpacked)
            while True:
                try:
                    line = next(lines, None)
                except (EOFError, OSError, zlib.error) as error:
                    raise ValueError(f"{path}: gzip file cut short or damaged: {error}") from error
                if line is None:
                    return
                yield line


def _without_bom(lines: Iterable[bytes]) -> Iterator[bytes]:
    first = True
    for line in lines:
        line, first = line.removeprefix(_BOM) if first else line, False
        if b"\r" in line:  # of Windows, or a line's end of its own
            yield from line.splitlines(keepends=True)
        else:
            yield line


def read_text(path: AnyPath) -> str:
    """The whole file, as `read_lines` reads it, lines ending in `\\n`.

    Raises:
        OSError, ValueError: as `read_lines`, or the text is not UTF-8 (the message has the line).
    """
    lines = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            lines.append(line.decode())
        except UnicodeDecodeError as error:
            wrong = line[error.start : error.end]
            raise ValueError(
                f"{path}:{number}: must be UTF-8, but has the bytes {wrong!r}"
            ) from None
    return "".join(lines).replace("\r\n", "\n").replace("\r", "\n")


def fields(line: bytes) -> list[bytes]:
    """What white space parts, full-width and other spaces included, without spaces of no width. A
    field that consists of such a space alone is a word of its own (a token may be one).
    """
    found = line.split()
    if not (
        b"\xe3\x80\x80" in line or b"\xe2\x80" in line or b"\xe2\x81" in line or b"\xc2" in line
        or b"\xef\xbb\xbf" in line or b"\xe1\x9a\x80" in line
    ):  # fmt: skip
        return found  # nearly always, and millions of times
    result: list[bytes] = []
    for field in found:
        seen = _NO_WIDTH.sub(b"", field)
        result += [piece for piece in _OTHER_SPACE.split(seen) if piece] or [field]
    return result


def same_text(text: str) -> str:
    """The form in which texts are compared that look the same: composed (NFC), as `が` may be one
    character or two.
    """
    return unicodedata.normalize("NFC", text)
