"""Text files as editors leave them: marks, packing, white space; what is said of broken ones."""

import gzip
from pathlib import Path

import pytest

from dualasr_lib.core.text import fields, read_lines, read_text, same_text

BOM = b"\xef\xbb\xbf"


def _file(folder: Path, content: bytes) -> Path:
    path = folder / "file"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("mark", [b"", BOM])
@pytest.mark.parametrize("packed", [False, True])
def test_marks_line_ends_and_packing_change_nothing(
    tmp_path: Path, end: bytes, mark: bytes, packed: bool
) -> None:
    content = mark + end.join(["今日 今 日".encode(), b"", b"b", b""])
    path = _file(tmp_path, gzip.compress(content) if packed else content)
    assert [line.decode().strip() for line in read_lines(path)] == ["今日 今 日", "", "b"]
    assert read_text(path) == "今日 今 日\n\nb\n"


def test_a_mark_is_taken_away_at_the_beginning_only(tmp_path: Path) -> None:
    path = _file(tmp_path, BOM + b"a\n" + BOM + b"b")
    assert list(read_lines(path)) == [b"a\n", BOM + b"b"]


def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    assert list(read_lines(_file(tmp_path, b""))) == []
    assert list(read_lines(_file(tmp_path, gzip.compress(b"")))) == []


@pytest.mark.parametrize("cut", [1, 5, 12, 30])
def test_a_gzip_file_that_was_cut_short_is_named(tmp_path: Path, cut: int) -> None:
    whole = gzip.compress(bytes(range(256)) * 20)
    path = _file(tmp_path, whole[:-cut])
    with pytest.raises(ValueError, match=r"file: gzip file cut short or damaged"):
        list(read_lines(path))


def test_a_damaged_gzip_file_is_named(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(bytes(range(256)) * 20))
    whole[20:40] = bytes(20)
    path = _file(tmp_path, bytes(whole))
    with pytest.raises(ValueError, match=r"file: gzip file cut short or damaged"):
        list(read_lines(path))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_named(tmp_path: Path, encoding: str) -> None:
    path = _file(tmp_path, "\ufeff今日".encode(encoding.removesuffix("-le") if encoding == "utf-16"
                                              else encoding))  # fmt: skip
    with pytest.raises(ValueError, match="must be a text file in UTF-8, but is in UTF-16"):
        list(read_lines(path))


def test_bytes_that_are_not_utf_8_are_named_with_their_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"file:2: must be UTF-8, but has the bytes b'\\x82'"):
        read_text(_file(tmp_path, "a\n今日".encode() + b"\x82\xa0"))


@pytest.mark.parametrize(
    "space", [" ", "\t", "\u3000", "\u00a0", "\u2003", "\u202f", "\u205f", "\u1680"]
)
def test_any_white_space_parts_fields(space: str) -> None:
    assert fields(f"今日{space}今{space}日\r\n".encode()) == [
        "今日".encode(),
        "今".encode(),
        "日".encode(),
    ]


def test_spaces_of_no_width_are_no_part_of_a_word() -> None:
    assert fields("今\u200b日 \ufeff今 日\u2060".encode()) == [
        "今日".encode(),
        "今".encode(),
        "日".encode(),
    ]


def test_a_space_that_is_a_token_of_its_own_is_kept() -> None:
    assert fields("-1.5\t\u3000\t-0.2".encode()) == [b"-1.5", "\u3000".encode(), b"-0.2"]


def test_what_looks_the_same_is_the_same() -> None:
    assert same_text("か\u3099") == same_text("が") == "が"
