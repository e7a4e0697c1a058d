"""No unit is lost or doubled in silence: overlaps, units behind the end, units of a few ms, errors
of the writer; the balance of what goes into a stage and what comes out.
"""

import json
import struct
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

pytest.importorskip("lhotse")
pytest.importorskip("_kaldifeat")
pytest.importorskip("soundfile")

from dualasr_lib.recipe import features
from dualasr_lib.recipe.balance import check_balance
from dualasr_lib.recipe.prepare import prepare
from dualasr_lib.recipe.stage import PrepareError, count_jsonl, read_jsonl, write_jsonl
from egs.csj.local.corpus import CSJ
from egs.csj.local.corpus_check import check_corpus
from egs.csj.local.options import CsjOptions
from egs.csj.local.sdb import check_sdb

Unit = tuple[float, float, str]
"""Start, end (s), words."""


class Talk(NamedTuple):
    units: list[Unit]
    seconds: float
    """Of audio."""


TALKS = {
    "A01M3001": Talk([(0.1, 5.0, "それ です"), (1.0, 2.0, "えー"), (6.5, 7.0, "は")], 9.0),
    "A01M3002": Talk([(0.1, 1.0, "それ"), (0.8, 2.0, "は")], 3.0),
    "A01M3003": Talk([(0.1, 1.0, "それ"), (0.1, 1.0, "は")], 3.0),
    "A01M3004": Talk([(0.1, 1.0, "それ"), (1.0, 2.0, "は")], 3.0),
    "A01M3005": Talk([(0.1, 12.0, "それ"), (1.0, 2.0, "は"), (2.5, 13.0, "の")], 14.0),
    "A01M3006": Talk([(0.1, 1.0, "それ"), (1.5, 2.0, "は")], 3.0),  # its numbers are 9, 2
    "A01M3010": Talk([(0.1, 2.0, "それ"), (3.6, 5.02, "は"), (5.1, 5.4, "人")], 5.0),
    "A01M3011": Talk([(0.1, 2.0, "それ"), (3.6, 4.9, "は"), (5.0, 5.4, "人")], 5.0),
    "A01M3012": Talk([(0.1, 1.0, "それ"), (1.5, 2.0, "<笑>")], 4.0),
    "A01M3020": Talk(
        [
            (0.1, 2.0, "それ です"),
            (3.5, 3.505, "は"),
            (6.0, 6.012, "の"),
            (9.0, 9.001, "の"),
            (10.5, 10.513, "人"),
            (11.6, 11.7, "は"),
        ],
        12.0,
    ),
    "A01M3030": Talk([(0.1, 1.0, "それ"), (3.0, 4.0, "は")], 4.5),  # NaN in the second unit
    "A01M3031": Talk([(0.1, 1.0, "それ"), (3.0, 4.0, "は")], 4.5),  # cut short after stage 3
}


def _sdb(units: list[Unit], talk: str) -> bytes:
    rows = [
        f"{number:06d}\t\t{talk}\t{number:04d} {start:09.3f}-{end:09.3f} L:-001-{k:03d}"
        f"\t\t{word}\t\t\t\t\tヨミ\t名詞\n"
        for number, (start, end, words) in enumerate(units, start=1)
        for k, word in enumerate(words.split(), start=1)
    ]
    return "".join(rows).encode("shift_jis")


def _put(corpus: Path, talk: str, units: list[Unit], seconds: float) -> None:
    (corpus / f"MORPH/SDB/core/{talk}.sdb").write_bytes(_sdb(units, talk))
    noise = np.random.default_rng(0).integers(-3000, 3000, round(16000 * seconds), dtype=np.int16)
    with wave.open(str(corpus / f"WAV/core/{talk}.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(noise.tobytes())


def _float_wav(samples: "np.ndarray[Any, Any]") -> bytes:
    header = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + samples.nbytes, b"WAVE", b"fmt ", 16,
                         3, 1, 16000, 64000, 4, 32)  # fmt: skip
    return header + struct.pack("<4sI", b"data", samples.nbytes) + samples.tobytes()


class Prepared(NamedTuple):
    data: Path
    corpus: Path
    refused: str
    """What stage 4 said before --allow-bad."""


@pytest.fixture(scope="module")
def prepared(
    make_corpus: Callable[[Path, int], Path], tmp_path_factory: pytest.TempPathFactory
) -> Prepared:
    """A corpus with all these talks, up to stage 4."""
    folder = tmp_path_factory.mktemp("units")
    corpus, data = make_corpus(folder / "csj", 2), folder / "data"
    for talk, (units, seconds) in TALKS.items():
        _put(corpus, talk, units, seconds)
    swapped = corpus / "MORPH/SDB/core/A01M3006.sdb"
    swapped.write_bytes(swapped.read_bytes().replace(b"\t0001 ", b"\t0009 "))
    samples = np.zeros(72000, np.float32)
    samples[56000] = np.nan
    (corpus / "WAV/core/A01M3030.wav").write_bytes(_float_wav(samples))
    options = CsjOptions(csj_dir=corpus, data_dir=data, jobs=1)
    prepare(CSJ, options, last=3)
    _put(corpus, "A01M3031", TALKS["A01M3031"].units, 2.0)
    with pytest.raises(PrepareError) as refused:
        prepare(CSJ, options, last=4)
    prepare(CSJ, CsjOptions(csj_dir=corpus, data_dir=data, jobs=1, allow_bad=6), last=4)
    return Prepared(data, corpus, str(refused.value))


def _utterances(data: Path, talk: str, folder: str = "utterances") -> list[dict[str, Any]]:
    """At the natural speed, in the order of time."""
    cuts = [
        cut
        for cut in read_jsonl(data / folder / "csj_cuts_train.jsonl.gz")
        if cut["id"].startswith(talk) and "_sp" not in cut["id"]
    ]
    return sorted(cuts, key=lambda cut: (cut["start"], cut["id"]))


def _read(data: Path, name: str) -> Any:
    return json.loads((data / name).read_text(encoding="utf-8"))


def _warnings(data: Path, talk: str) -> list[tuple[int, str]]:
    warnings = _read(data, "report/bad.json")["warnings"]
    return [(item["line"], item["reason"]) for item in warnings if item["talk"] == talk]


@pytest.mark.parametrize(
    ("talk", "expected", "lines"),
    [
        ("A01M3001", [(0.1, 5.0, "それですえー"), (6.5, 7.0, "は")], [3]),  # inside
        ("A01M3002", [(0.1, 2.0, "それは")], [2]),  # reaching over
        ("A01M3003", [(0.1, 1.0, "それは")], [2]),  # the same times
        ("A01M3004", [(0.1, 2.0, "それは")], []),  # touching
        ("A01M3005", [(0.1, 12.0, "それ"), (1.0, 2.0, "は"), (2.5, 13.0, "の")], [2, 3]),  # long
        ("A01M3006", [(0.1, 2.0, "それは")], []),  # the order of time, not of numbers
    ],
)
def test_overlapping_units_are_named_and_no_cut_ends_before_one(
    prepared: Prepared, talk: str, expected: list[Unit], lines: list[int]
) -> None:
    found = [
        (cut["start"], round(cut["start"] + cut["duration"], 6), cut["supervisions"][0]["text"])
        for cut in _utterances(prepared.data, talk)
    ]
    assert found == expected
    warned = _warnings(prepared.data, talk)
    assert [line for line, reason in warned if "overlaps that of line" in reason] == lines


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([(0.1, 1.0, "それ"), (0.1, 1.0, "それ")], "the same unit as in line 1"),
        ([(0.1, 5.0, "(M_それ"), (1.0, 2.0, "は)")], "a tag ties this unit to that of line 1"),
    ],
)
def test_overlaps_that_cannot_be_right(tmp_path: Path, rows: list[Unit], reason: str) -> None:
    path = tmp_path / "A01M3001.sdb"
    path.write_bytes(_sdb(rows, path.stem))
    (found,) = check_sdb(path, path.stem).defects
    assert found.line == 2
    assert found.reason.startswith(reason)


def test_rows_of_a_unit_must_agree_about_its_times(tmp_path: Path) -> None:
    path = tmp_path / "A01M3001.sdb"
    units = [(0.1, 5.0, "それ"), (1.0, 2.0, "は")]
    path.write_bytes(_sdb(units, path.stem).replace(b"0002 ", b"0001 "))
    (found,) = check_sdb(path, path.stem).defects
    expected = "segment 0001 is at 1.0-2.0 s here, but at 0.1-5.0 s in line 1"
    assert (found.line, found.reason) == (2, expected)


@pytest.mark.parametrize("talk", ["A01M3010", "A01M3011"])
def test_a_unit_behind_the_end_is_left_out_by_name(prepared: Prepared, talk: str) -> None:
    """lhotse drops a unit behind the end, and stops with an assertion at one that begins there."""
    left_out = _read(prepared.data, "manifests/check.json")["units_left_out"]
    assert f"{talk}_0003" in left_out["behind the end of the audio"]
    ends = [(line, why.rpartition(": ")[2]) for line, why in _warnings(prepared.data, talk)]
    shortened = [(2, "shortened")] if talk == "A01M3010" else []
    assert ends == [*shortened, (3, "left out")]
    texts = [cut["supervisions"][0]["text"] for cut in _utterances(prepared.data, talk)]
    assert texts == ["それ", "は"]


def test_units_in_are_units_out_and_units_named(prepared: Prepared) -> None:
    check = _read(prepared.data, "manifests/check.json")
    assert "A01M3012_0002" in check["units_left_out"]["no text"]
    assert check["units_without_text"] == len(check["units_left_out"]["no text"])
    manifests = (prepared.data / "manifests").glob("csj_supervisions_*.jsonl.gz")
    kept = sum(count_jsonl(path) for path in manifests)
    assert check["units"] == kept + sum(len(ids) for ids in check["units_left_out"].values())


def test_a_talk_whose_units_all_lie_behind_the_end_is_a_bad_talk(own_csj: Path) -> None:
    _put(own_csj, "A01M3001", [(1.0, 1.2, "それ")], 0.9)
    _put(own_csj, "A01M3002", [(0.1, 0.7, "(R_それ"), (1.0, 1.2, "は)")], 0.9)
    reports = {report.talk.id: report for report in check_corpus(own_csj, jobs=1)}
    (empty,) = reports["A01M3001"].defects
    assert empty.reason == "no unit with text within the audio"
    (tied,) = reports["A01M3002"].defects
    assert (tied.line, tied.reason) == (2, "a tag ties units across the end of the audio (0.900 s)")


def test_units_of_a_few_ms_are_left_out_by_name(prepared: Prepared) -> None:
    talk = "A01M3020"
    left_out = _read(prepared.data, "utterances/left_out.json")["train"]
    short = [f"{talk}_0002", f"{talk}_0003", f"{talk}_0004", f"{talk}_0005_sp1.1"]
    assert left_out == {"shorter than 12.5 ms": short}
    kept = [cut["id"][-4:] for cut in _utterances(prepared.data, talk, "cuts")]
    assert kept == ["0001", "0005", "0006"]


def test_audio_that_cannot_be_read_is_named_and_left_out_if_allowed(prepared: Prepared) -> None:
    """Samples that are no numbers; a file that was cut short between the stages."""
    assert prepared.refused.startswith("6 utterances have no readable audio")
    bad = {i["id"]: i["reason"] for i in _read(prepared.data, "report/bad_utterances.json")}
    copies = ("", "_sp0.9", "_sp1.1")
    assert bad.keys() == {
        f"{talk}_0002{copy}" for talk in ("A01M3030", "A01M3031") for copy in copies
    }
    why = "the audio has samples that are NaN, infinite or far beyond 1"
    assert bad["A01M3030_0002"] == why
    for talk in ("A01M3030", "A01M3031"):
        kept = [cut["id"] for cut in _utterances(prepared.data, talk, "cuts")]
        assert kept == [f"{talk}_0001"]


def _again(prepared: Prepared, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What prepare.sh says when everything is done."""
    capsys.readouterr()
    prepare(CSJ, CsjOptions(csj_dir=prepared.corpus, data_dir=prepared.data, jobs=1), last=4)
    return capsys.readouterr().err.splitlines()


def test_a_stage_that_left_something_out_says_so_and_sees_what_was_repaired(
    prepared: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    done = "stage 1: done without 2 (units of A01M3010 behind its end, units of A01M3011 behind"
    first, fourth = _again(prepared, capsys)
    assert first.startswith(done)
    assert fourth.startswith("stage 4: done without 6 (A01M30")
    for talk in ("A01M3010", "A01M3031"):
        _put(prepared.corpus, talk, TALKS[talk].units, 6.0)
    first, repaired, fourth, readable = _again(prepared, capsys)
    assert first.startswith(done)
    assert repaired.startswith("stage 1: 1 (units of A01M3010 behind its end): changed since, but")
    assert f"remove '{prepared.data}/done/stage-1' and all later markers" in repaired
    assert readable.startswith("stage 4: 3 (A01M3031_0002")
    assert fourth.startswith("stage 4: done without 6")


def test_a_talk_that_was_missing_is_seen_when_it_comes(
    own_csj: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sdb = own_csj / "MORPH/SDB/noncore/A01M0097.sdb"
    kept, data = sdb.read_bytes(), tmp_path / "data"
    sdb.unlink()
    prepare(CSJ, CsjOptions(csj_dir=own_csj, data_dir=data, jobs=1, allow_bad=1), last=1)
    capsys.readouterr()
    options = CsjOptions(csj_dir=own_csj, data_dir=data, jobs=1)
    prepare(CSJ, options, last=1)
    assert capsys.readouterr().err == "stage 1: done without 1 (A01M0097)\n"
    sdb.write_bytes(kept)
    prepare(CSJ, options, last=1)
    assert "1 (A01M0097): changed since, but still left out" in capsys.readouterr().err


def test_a_full_disk_is_no_fault_of_the_audio(prepared: Prepared, tmp_path: Path) -> None:
    (tmp_path / "eval1-00000.lca").symlink_to("/dev/full")
    cuts = list(read_jsonl(prepared.data / "utterances/csj_cuts_eval1.jsonl.gz"))
    with pytest.raises(PrepareError, match=r"cannot be written to .*: No space left on device"):
        features._compute_shard(features._Shard("eval1", 0, cuts), tmp_path)
    assert not (tmp_path / "eval1-00000.jsonl.gz").exists()


def test_the_balance_names_what_is_lost_and_what_is_doubled() -> None:
    check_balance("stage 9", ["a", "b", "c"], ["a"], {"no text": ["b"], "other": ["c"]})
    with pytest.raises(PrepareError, match=r"stage 9: .* but 1 lost \(b\)"):
        check_balance("stage 9", ["a", "b"], ["a"], {})
    with pytest.raises(PrepareError, match=r"1 lost \(b\) and 2 doubled or from nowhere \(a, x\)"):
        check_balance("stage 9", ["a", "b"], ["a", "a"], {"no text": ["x"]})


def test_a_manifest_that_was_cut_short_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "cuts.jsonl.gz"
    write_jsonl(path, ({"id": str(i), "text": "x" * (i % 97)} for i in range(1000)))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    for read in (lambda: list(read_jsonl(path)), lambda: count_jsonl(path)):
        with pytest.raises(PrepareError, match=r"cuts.jsonl.gz:\d+: .*cut short or damaged"):
            read()
