"""Defects of a corpus: all are named in one run, and --allow-bad leaves out what it covers."""

import json
import os
import shutil
import subprocess
import wave
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("lhotse")
pytest.importorskip("_kaldifeat")
pytest.importorskip("matplotlib")
pytest.importorskip("soundfile")

import soundfile

from dualasr_lib.programs.prepare import main
from dualasr_lib.recipe.stage import Folders, PrepareError, read_jsonl
from egs.csj.local.corpus import CSJ
from egs.csj.local.corpus_check import check_corpus
from egs.csj.local.manifests import run
from egs.csj.local.options import CsjOptions

ROOT = Path(__file__).parents[2]


def _sdb(corpus: Path, talk: str) -> Path:
    return corpus / "MORPH" / "SDB" / "noncore" / f"{talk}.sdb"


def _wav(corpus: Path, talk: str) -> Path:
    return corpus / "WAV" / "noncore" / f"{talk}.wav"


def _truncate_wav(corpus: Path, talk: str) -> None:
    path = _wav(corpus, talk)
    os.truncate(path, path.stat().st_size // 2)


def _write_8khz(corpus: Path, talk: str) -> None:
    with wave.open(str(_wav(corpus, talk)), "rb") as file:
        samples = file.readframes(file.getnframes())
    with wave.open(str(_wav(corpus, talk)), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(samples[::2])


def _break_line(corpus: Path, talk: str) -> None:
    lines = _sdb(corpus, talk).read_bytes().split(b"\n")
    lines[2] = lines[2][:-4] + b"\xff\xff"
    _sdb(corpus, talk).write_bytes(b"\n".join(lines))


def _empty_talk(corpus: Path, talk: str) -> None:
    _sdb(corpus, talk).write_bytes(b"")


FIVE: dict[str, tuple[Callable[[Path, str], None], str]] = {
    "A01M0097": (lambda corpus, talk: _wav(corpus, talk).unlink(), "the audio is missing"),
    "A03F0072": (_truncate_wav, "truncated: "),
    "S00F2002": (_write_8khz, "sampling rate must be 16000 Hz, is 8000 Hz"),
    "S00M0112": (_break_line, "not Shift_JIS"),
    "D03F0058": (_empty_talk, "the file is empty"),
}


@pytest.fixture
def five_defects(own_csj: Path) -> Path:
    """A missing, a truncated and an 8 kHz WAV, a broken SDB line, an empty talk."""
    for talk, (damage, _) in FIVE.items():
        damage(own_csj, talk)
    return own_csj


def _prepare(corpus: Path, data: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    script = str(ROOT / "egs" / "csj" / "prepare.sh")
    folders = ["--csj-dir", str(corpus), "--data-dir", str(data)]
    return subprocess.run(
        ["bash", script, *folders, *options], capture_output=True, text=True, check=False
    )


def test_five_planted_defects_are_all_named(five_defects: Path, tmp_path: Path) -> None:
    result = _prepare(five_defects, tmp_path / "data")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    bad = json.loads((tmp_path / "data/report/bad.json").read_text(encoding="utf-8"))
    assert bad["bad_talks"] == sorted(FIVE)
    reasons: dict[str, list[str]] = {}
    for defect in bad["defects"]:
        reasons.setdefault(defect["talk"], []).append(defect["reason"])
    for talk, (_, reason) in FIVE.items():
        assert any(found.startswith(reason) for found in reasons[talk]), reasons[talk]
        assert any(f"bad talk {talk}: " in line and reason in line for line in _lines(result))
    (broken,) = [defect for defect in bad["defects"] if defect["talk"] == "S00M0112"]
    assert (broken["line"], broken["file"]) == (3, str(_sdb(five_defects, "S00M0112")))
    assert "--allow-bad 5" in result.stderr
    assert not (tmp_path / "data" / "done" / "stage-1").exists()


def _lines(result: "subprocess.CompletedProcess[str]") -> list[str]:
    return result.stderr.splitlines()


def test_allowed_bad_talks_are_left_out(five_defects: Path, tmp_path: Path) -> None:
    """Four of them are talks that lhotse's recipe insists on."""
    data = tmp_path / "data"
    assert _prepare(five_defects, data, "--stop-stage", "1", "--allow-bad", "4").returncode == 1
    result = _prepare(five_defects, data, "--stop-stage", "3", "--allow-bad", "5")
    assert result.returncode == 0, result.stderr
    recordings = {
        item["id"]: item["sources"][0]["source"]
        for path in (data / "manifests").glob("csj_recordings_*.jsonl.gz")
        for item in read_jsonl(path)
    }
    assert not {id_.removesuffix("-L").removesuffix("-R") for id_ in recordings} & FIVE.keys()
    assert len(recordings) == 78 - 5 + 5  # five dialogues are left, with two channels each
    assert all(Path(source).is_file() for source in recordings.values())
    assert {Path(source).parents[2] for source in recordings.values()} == {five_defects}
    check = json.loads((data / "manifests" / "check.json").read_text())
    assert check["left_out"] == sorted(FIVE)
    eval1 = list(read_jsonl(data / "utterances" / "csj_cuts_eval1.jsonl.gz"))
    assert len({cut["supervisions"][0]["speaker"] for cut in eval1}) == 9


@pytest.mark.parametrize("wrong", ["", "MORPH", "MORPH/SDB"])
def test_a_wrong_folder_is_one_clear_line(
    tiny_csj: Path, tmp_path: Path, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_csj / wrong if wrong else tmp_path / "nothing"
    assert main(CSJ, ["--csj-dir", str(folder), "--data-dir", str(tmp_path / "data")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("prepare.sh: error: --csj-dir must hold MORPH/SDB/{core,noncore}")
    assert bool(wrong) == (f"did you mean '{tiny_csj}'?" in line)


def test_wrong_options_are_one_clear_line(
    tiny_csj: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ["--csj-dir", str(tiny_csj), "--data-dir", str(tmp_path)]
    assert main(CSJ, [*folders, "--jobs", "0"]) == 1
    assert main(CSJ, [*folders, "--stage", "4", "--stop-stage", "3"]) == 1
    assert main(CSJ, [*folders, "--order", "4", "--rescoring-order", "3"]) == 1
    assert main(CSJ, [*folders, "--order", "1"]) == 1
    first, second, third, fourth = capsys.readouterr().err.splitlines()
    assert first == "prepare.sh: error: --jobs must be at least 1, is 0"
    assert second == "prepare.sh: error: --stage and --stop-stage must be in 1..7, are 4 and 3"
    wanted = "--rescoring-order must be at least --order (4) and at most 5, is 3"
    assert third == f"prepare.sh: error: {wanted}"
    assert fourth == "prepare.sh: error: --order must be at least 2, is 1"


def _reasons(corpus: Path, talk: str) -> list[str]:
    reports = [report for report in check_corpus(corpus, jobs=1) if report.talk.id == talk]
    return [defect.reason for report in reports for defect in report.defects]


def test_other_defects_of_talks(own_csj: Path) -> None:
    _wav(own_csj, "A01M0137").write_bytes(b"")
    _wav(own_csj, "A01M0110").write_bytes(b"RIFF, but not really")
    _sdb(own_csj, "A04M0123").unlink()
    with wave.open(str(_wav(own_csj, "A04M0121")), "wb") as file:
        file.setparams((2, 2, 16000, 0, "NONE", ""))
        file.writeframes(bytes(4 * 16000))
    with wave.open(str(_wav(own_csj, "A04M0051")), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
    assert _reasons(own_csj, "A01M0137") == ["the audio file is empty"]
    assert _reasons(own_csj, "A01M0110")[0].startswith("unreadable audio")
    assert "needs this talk for eval1" in _reasons(own_csj, "A04M0123")[0]
    stereo = _reasons(own_csj, "A04M0121")
    assert stereo[0] == "must have one channel, has 2"
    assert stereo[1].startswith("the transcript ends at ")
    assert _reasons(own_csj, "A04M0051") == ["the audio has no samples"]


def test_truncated_flac_under_a_wav_name(own_csj: Path) -> None:
    """libsndfile reads by content, so a tree may hold FLAC data; its header hides a truncation."""
    path = _wav(own_csj, "A01M0097")
    samples, rate = soundfile.read(path)
    soundfile.write(path, samples, rate, format="FLAC")
    assert _reasons(own_csj, "A01M0097") == []
    os.truncate(path, path.stat().st_size // 2)
    assert _reasons(own_csj, "A01M0097")[0].startswith("unreadable audio")


def test_lhotse_needs_a_training_talk_in_each_part(own_csj: Path, tmp_path: Path) -> None:
    (own_csj / "MORPH/SDB/core/A01M2001.sdb").write_bytes(b"")
    options = CsjOptions(csj_dir=own_csj, data_dir=tmp_path, jobs=1, allow_bad=1)
    with pytest.raises(PrepareError, match="no good training talk is left in core/"):
        run(options, Folders(tmp_path / "out", tmp_path / "scratch"))


def test_a_talk_in_both_parts_is_refused(own_csj: Path, tmp_path: Path) -> None:
    shutil.copy(_sdb(own_csj, "A01M0097"), own_csj / "MORPH/SDB/core/A01M0097.sdb")
    shutil.copy(_wav(own_csj, "A01M0097"), own_csj / "WAV/core/A01M0097.wav")
    options = CsjOptions(csj_dir=own_csj, data_dir=tmp_path, jobs=1, allow_bad=9)
    with pytest.raises(PrepareError, match="remove one copy of A01M0097"):
        run(options, Folders(tmp_path / "out", tmp_path / "scratch"))


def test_an_unfinished_open_corpus_is_refused(own_csj: Path, tmp_path: Path) -> None:
    (own_csj / ".complete").unlink()
    options = CsjOptions(csj_dir=own_csj, data_dir=tmp_path, jobs=1, open=True)
    with pytest.raises(PrepareError, match="no complete open corpus"):
        run(options, Folders(tmp_path / "out", tmp_path / "scratch"))
