"""The SDB reader names every defect with its line; a clean file has none."""

from pathlib import Path

import pytest

from egs.csj.local.sdb import SdbReport, check_sdb

TALK = "A01M0097"


def _row(number: int, segment: int, surface: str = "それ", **fields: str) -> list[str]:
    start = segment - 1 + 0.1
    time = f"{segment:04d} {start:09.3f}-{start + 0.8:09.3f} L:-001-001"
    talk = fields.get("talk", TALK)
    pron = fields.get("pron", "ソレ")
    return [f"{number:06d}", "", talk, fields.get("time", time), "", surface, "", "", "", "", pron]


def _check(tmp_path: Path, rows: list[list[str]], talk: str = TALK, end: str = "\n") -> SdbReport:
    path = tmp_path / f"{talk}.sdb"
    path.write_bytes(("\n".join("\t".join(row) for row in rows) + end).encode("shift_jis"))
    return check_sdb(path, talk)


def _found(report: SdbReport) -> list[tuple[int, str]]:
    return [(defect.line, defect.reason) for defect in report.defects]


def test_a_clean_file_has_no_defects(tmp_path: Path) -> None:
    rows = [_row(1, 1, "(F えー)"), _row(2, 1), _row(3, 2, "(A 二"), _row(4, 2, "十;２０)")]
    rows += [_row(5, 3, "(M あ"), _row(6, 4, "い)"), _row(7, 5, "<笑>")]
    report = _check(tmp_path, rows)
    assert report.defects == ()
    assert report.warnings == ()
    assert [len(report.spans), sum(not span.text for span in report.spans)] == [4, 1]
    assert report.last_end == pytest.approx(4.9)


@pytest.mark.parametrize(
    ("rows", "line", "reason"),
    [
        ([_row(1, 1), _row(2, 2)[:4]], 2, "needs more than 5 tab-separated columns, has 4"),
        ([_row(1, 1), _row(2, 2, time="0002 00001.000 L:-001-001")], 2, "column 3 must look like"),
        ([_row(1, 1, talk="A01M0110")], 1, "column 2 must be the talk A01M0097, is 'A01M0110'"),
        ([_row(1, 1), ["", *_row(2, 2)[1:]]], 2, "the first column is blank"),
        ([_row(1, 1), [""], _row(2, 2)], 2, "blank line"),
        ([_row(1, 1, "あ\rい")], 1, "carriage return inside the line"),
        ([_row(1, 1), _row(2, 2), _row(3, 1)], 3, "segment 0001 came before, in line 1"),
        ([_row(1, 2), _row(2, 1)], 2, "starts at 0.1 s, before the previous unit (1.1 s)"),
        ([_row(1, 1, time="0001 00002.000-00001.000 L:-001-001")], 1, "segment ends at 1.0 s"),
        ([_row(1, 1), _row(2, 2, "(F えー"), _row(3, 3)], 2, "bracket is never closed (surface)"),
        ([_row(1, 1), _row(2, 2, pron="(F エー")], 2, "bracket is never closed (pron)"),
        ([_row(1, 1), _row(2, 2, "えー)")], 2, "closing bracket without an opening one (surface)"),
        ([_row(1, 1), _row(2, 1, "(Z あ)")], 2, "unknown tag 'Z'"),
        ([_row(1, 1), _row(2, 1, "一,二")], 2, "',' outside a tag"),
        ([_row(1, 1, "あ+い")], 1, "'+' in the surface"),
        ([_row(1, 1, "<笑>"), _row(2, 2, "(?)")], 0, "the talk is empty"),
    ],
)
def test_each_defect_is_named_with_its_line(
    tmp_path: Path, rows: list[list[str]], line: int, reason: str
) -> None:
    found = _found(_check(tmp_path, rows))
    assert [(at, why) for at, why in found if at == line and why.startswith(reason)], found


def test_an_undecodable_line_does_not_hide_the_others(tmp_path: Path) -> None:
    path = tmp_path / f"{TALK}.sdb"
    good = "\t".join(_row(1, 1)).encode("shift_jis")
    broken = "\t".join(_row(3, 3, "(Z あ)")).encode("shift_jis")
    path.write_bytes(b"\n".join([good, b"\x85\x41\t" + good, broken, b""]))
    (first, second) = _found(check_sdb(path, TALK))
    assert first[0] == 2
    assert first[1].startswith("not Shift_JIS: b'\\x85")
    assert second[0] == 3
    assert second[1].startswith("unknown tag 'Z'")


def test_a_file_without_its_last_newline_is_a_defect(tmp_path: Path) -> None:
    found = _found(_check(tmp_path, [_row(1, 1), _row(2, 2)], end=""))
    assert found == [(2, "no newline at the end of the file (the last unit would be lost)")]


@pytest.mark.parametrize("content", [b"", b"\n", b" \n\n"])
def test_an_empty_file_is_a_defect(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / f"{TALK}.sdb"
    path.write_bytes(content)
    assert _found(check_sdb(path, TALK)) == [(0, "the file is empty")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_another_encoding_is_one_defect(tmp_path: Path, encoding: str) -> None:
    """Not one for each line."""
    path = tmp_path / f"{TALK}.sdb"
    rows = ["\t".join(_row(i, i, "それは水です")) for i in range(1, 9)]
    path.write_bytes(("\n".join(rows) + "\n").encode(encoding))
    ((line, reason),) = _found(check_sdb(path, TALK))
    assert (line, reason[:18]) == (0, "the file is in UTF")
    assert reason.endswith("but must be in Shift_JIS (iconv -t SHIFT_JIS)")


def test_line_ends_of_windows_are_taken(tmp_path: Path) -> None:
    path = tmp_path / f"{TALK}.sdb"
    _check(tmp_path, [_row(1, 1), _row(2, 2)])
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    report = check_sdb(path, TALK)
    assert report.defects == report.warnings == ()
    assert [span.text for span in report.spans] == ["それ", "それ"]


def test_other_white_space_is_named(tmp_path: Path) -> None:
    """In the surface it is a character of the text; anywhere else the row cannot be read."""
    report = _check(tmp_path, [_row(1, 1, "それ\u3000は")])
    assert report.defects == ()
    assert "white space inside" in report.warnings[0].reason
    (found,) = _found(_check(tmp_path, [_row(1, 1, time="0001\u300000000.100-00000.900 L:-001")]))
    assert found[1].startswith("column 3 must look like")


def test_a_dialogue_needs_rows_of_both_channels(tmp_path: Path) -> None:
    report = _check(tmp_path, [_row(1, 1, talk="D03F0058")], talk="D03F0058")
    assert _found(report) == [(0, "channel R of the dialogue has no row")]


def test_half_width_characters_are_a_warning(tmp_path: Path) -> None:
    report = _check(tmp_path, [_row(1, 1, "CDを")])
    assert report.defects == ()
    assert [(note.line, note.file) for note in report.warnings] == [
        (1, str(tmp_path / f"{TALK}.sdb"))
    ]


def test_what_lhotse_does_with_a_missing_newline(tmp_path: Path) -> None:
    """The reason for the check: lhotse loses the last unit without a word."""
    csj = pytest.importorskip("lhotse.recipes.csj")
    rows = [_row(1, 1), _row(2, 2)]
    _check(tmp_path, rows)
    assert len(csj._read_one_sdb(tmp_path / f"{TALK}.sdb")) == 2
    _check(tmp_path, rows, end="")
    assert len(csj._read_one_sdb(tmp_path / f"{TALK}.sdb")) == 1
