"""egs/own: three ways in, splits, languages, and a dry run that names every planted defect."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lhotse")
pytest.importorskip("_kaldifeat")
pytest.importorskip("matplotlib")
pytest.importorskip("soundfile")

import soundfile
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

from dualasr_lib.data.folder import DataFolder
from dualasr_lib.programs.prepare import main
from dualasr_lib.recipe.defects import KINDS
from dualasr_lib.recipe.stage import read_jsonl
from egs.own.local.corpus import OWN

RATE = 16000
SPEAKERS = ("s1", "s2", "s3", "s4", "s5", "s6")
WORDS = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india")
SPLITS = "s1 train\ns2 train\ns3 train\ns4 train\ns5 valid\ns6 test\n"


def noise(name: str, seconds: float, rate: int = RATE, level: float = 0.1) -> np.ndarray:
    return np.random.default_rng(list(name.encode())).normal(0, level, round(seconds * rate))


def text_of(name: str, seconds: float) -> str:
    """About 13 characters per second."""
    chooser, words = random.Random(name), []
    while sum(map(len, words)) < 12 * seconds:
        words.append(chooser.choice(WORDS))
    return " ".join(words)


class Tree:
    """A folder of audio, one folder for each speaker, and the lines of its text file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: dict[str, bytes] = {}
        for speaker in SPEAKERS:
            (folder / speaker).mkdir(parents=True)
            for number in range(6):
                self.add(f"{speaker}/{number}")

    def add(
        self, name: str, samples: Any = None, text: str | None = None, rate: int = RATE
    ) -> None:
        """An utterance; what is not given is as it should be."""
        if samples is None:
            samples = noise(name, 2.0, rate)
        soundfile.write(self.folder / f"{name}.wav", samples, rate, subtype="FLOAT")
        spoken = text_of(name, len(samples) / rate) if text is None else text
        self.lines[name] = f"{name} {spoken}".encode()

    def write(self, more: bytes = b"") -> list[str]:
        """The options that name it."""
        text = self.folder.parent / "text.txt"
        text.write_bytes(b"".join(line + b"\n" for line in self.lines.values()) + more)
        return ["--audio-dir", str(self.folder), "--text", str(text)]


def prepare(data: Path, *arguments: object) -> int:
    return main(OWN, [str(word) for word in ("--data-dir", data, "--jobs", 1, *arguments)])


def doubts(data: Path) -> dict[str, set[str]]:
    report = json.loads((data / "dry-run/report.json").read_text())
    return {kind: {item["id"] for item in items} for kind, items in report["doubts"].items()}


def split_file(folder: Path, more: str = "") -> Path:
    path = folder / "splits.txt"
    path.write_text(SPLITS + more)
    return path


def test_a_clean_folder_raises_no_doubt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = Tree(tmp_path / "audio").write()
    splits = ("--split-file", split_file(tmp_path), "--normaliser", "lower")
    assert prepare(tmp_path / "data", *given, *splits, "--dry-run") == 0
    assert doubts(tmp_path / "data") == {}
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["dry-run"]
    assert "| valid | 6 " in capsys.readouterr().out


def plant_text(tree: Tree) -> dict[str, set[str]]:
    """Defects of texts and lengths."""
    tree.add("s1/empty", text="")
    tree.add("s1/short", noise("short", 0.1), text="a")
    tree.add("s1/long", noise("long", 30.5))
    tree.add("s1/many", noise("many", 0.5), text="alphabet soup for everybody in the house")
    tree.add("s1/fast", text=text_of("fast", 4.2))
    tree.add("s1/slow", text="echo")
    tree.add("s1/odd", text=f"{text_of('odd', 1.6)} cafã©")
    tree.add("s1/markup", text=f"{text_of('markup', 1.6)} <noise>")
    tree.add("s1/digits", text=f"{text_of('digits', 1.6)} 42")
    tree.add("s1/row", text="golf golf golf golf golf hotel")
    tree.add("s5/new", text=f"{text_of('new', 1.6)} straße")
    tree.add("s1/said", text="the very same long sentence")
    tree.add("s5/said", text="the very same long sentence")
    tree.add("s2/moved")
    return {
        "empty-text": {"s1-empty"}, "too-short": {"s1-short"}, "too-long": {"s1-long"},
        "too-many-tokens": {"s1-many", "s1-fast"}, "fast-speech": {"s1-many", "s1-fast"},
        "slow-speech": {"s1-slow"}, "odd-characters": {"s1-odd"}, "markup": {"s1-markup"},
        "digits": {"s1-digits"}, "repeated-words": {"s1-row"}, "unknown-characters": {"s5-new"},
        "text-in-splits": {"s5-said"}, "speaker-in-splits": {"s2"},
    }  # fmt: skip


def plant_audio(tree: Tree) -> dict[str, set[str]]:
    """Defects of audio."""
    tone = np.sin(np.arange(2 * RATE) * 0.1)
    usual = noise("s3/plain", 2.0)
    tree.add("s3/clipped", np.clip(3 * noise("s3/clipped", 2.0, level=0.4), -1, 1))
    tree.add("s3/silent", np.zeros(2 * RATE))
    tree.add("s3/quiet", noise("s3/quiet", 2.0, level=0.001))
    tree.add("s3/pause", np.where(np.arange(2 * RATE) < RATE // 4, usual, 1e-5 * usual))
    tree.add("s3/offset", usual + 0.1)
    tree.add("s3/narrow", 0.3 * tone)
    tree.add("s3/low", noise("s3/low", 2.0, 8000), rate=8000)
    tree.add("s3/stereo", np.stack([usual, noise("s3/other", 2.0)], axis=1), text_of("stereo", 2.0))
    tree.add("s3/nan", np.where(np.arange(2 * RATE) == 99, np.nan, noise("s3/nan", 2.0)))
    tree.add("s6/again", noise("s1/0", 2.0))
    return {
        "clipped": {"s3-clipped"}, "silent": {"s3-silent"}, "quiet": {"s3-quiet"},
        "mostly-silent": {"s3-pause"}, "dc-offset": {"s3-offset"}, "narrow-band": {"s3-narrow"},
        "low-rate": {"s3-low"}, "several-channels": {"s3-stereo"}, "not-finite": {"s3-nan"},
        "repeated-audio": {"s6-again"},
    }  # fmt: skip


def plant_files(tree: Tree) -> tuple[dict[str, set[str]], bytes]:
    """Defects of files, and further lines of the text file."""
    (tree.folder / "s4/broken.wav").write_bytes(b"RIFF, or so it says")
    soundfile.write(tree.folder / "s4/mute.wav", noise("mute", 2.0), RATE)
    more = b"s4/broken alpha\ns4/ghost bravo\ns1/1 again\ns4/latin caf\xe9\n"
    number = len(tree.lines) + 4
    return {
        "missing-audio": {"s4/ghost"}, "unreadable-audio": {"s4-broken"},
        "no-transcript": {"s4/mute.wav"}, "duplicate-id": {"s1/1"},
        "bad-line": {f"text.txt:{number}"},
    }, more  # fmt: skip


def test_every_planted_defect_is_named(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "audio")
    expected = plant_text(tree) | plant_audio(tree)
    files, more = plant_files(tree)
    expected |= files
    assert len(expected) == 28
    given = tree.write(more)
    splits = ("--split-file", split_file(tmp_path, "s2-moved valid\n"), "--normaliser", "lower")
    data = tmp_path / "data"
    assert prepare(data, *given, *splits, "--dry-run") == 0
    assert doubts(data) == expected
    page = (data / "dry-run/report.md").read_text()
    assert all(f"### {kind}: {len(ids)}\n" in page for kind, ids in expected.items())
    assert (data / "dry-run/report.png").stat().st_size > 10_000
    assert not (data / "dry-run/work").exists()


def test_a_run_in_earnest_stops_at_defects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = Tree(tmp_path / "audio")
    _, more = plant_files(tree)
    given = (*tree.write(more), "--split-file", split_file(tmp_path), "--stop-stage", 3)
    assert prepare(tmp_path / "data", *given) == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors[-1].startswith("prepare.sh: error: 5 defects (above)")
    assert any(line.startswith("bad s4-broken: unreadable-audio: ") for line in errors)
    assert prepare(tmp_path / "data", *given, "--allow-bad", 5) == 0
    assert "stage 1: done" in capsys.readouterr().out


def kaldi_dir(folder: Path, tree: Tree) -> Path:
    """The same utterances; those of s1 as segments of one recording."""
    folder.mkdir()
    scp, segments, texts, speakers = [], [], [], []
    whole = np.concatenate([soundfile.read(tree.folder / f"s1/{n}.wav")[0] for n in range(6)])
    soundfile.write(folder / "s1.wav", whole, RATE, subtype="FLOAT")
    scp.append("s1 s1.wav")
    for name, line in tree.lines.items():
        id_ = name.replace("/", "-")
        speaker, _, number = name.partition("/")
        if speaker == "s1":
            segments.append(f"{id_} s1 {2.0 * int(number)} {2.0 * int(number) + 2.0}")
        else:
            scp.append(f"{id_} {tree.folder / name}.wav")
            segments.append(f"{id_} {id_} 0.0 2.0")
        texts.append(f"{id_} {line.decode().partition(' ')[2]}")
        speakers.append(f"{id_} {speaker}")
    for file, lines in (
        ("wav.scp", scp), ("segments", segments), ("text", texts), ("utt2spk", speakers)
    ):  # fmt: skip
        (folder / file).write_text("".join(f"{line}\n" for line in lines))
    return folder


def cut_file(path: Path, tree: Tree) -> Path:
    cuts = []
    for name, line in tree.lines.items():
        id_, text = name.replace("/", "-"), line.decode().partition(" ")[2]
        recording = Recording.from_file(tree.folder / f"{name}.wav", recording_id=id_)
        spoken = SupervisionSegment(
            id_, id_, start=0, duration=2.0, text=text, speaker=name.partition("/")[0]
        )
        cuts.append(MonoCut(id_, 0, 2.0, 0, supervisions=[spoken], recording=recording))
    CutSet.from_cuts(cuts).to_file(path)
    return path


def utterances(data: Path) -> dict[str, list[tuple[Any, ...]]]:
    found = {}
    for split in ("train", "valid", "test"):
        cuts = read_jsonl(data / "utterances" / f"own_cuts_{split}.jsonl.gz")
        found[split] = sorted(
            (cut["id"], cut["duration"], s["text"], s["speaker"])
            for cut in cuts
            for s in cut["supervisions"]
        )
    return found


def test_three_ways_in_are_one(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "audio")
    sources = (
        tree.write(),
        ("--kaldi-dir", kaldi_dir(tmp_path / "kaldi", tree)),
        ("--cuts", cut_file(tmp_path / "cuts.jsonl.gz", tree)),
    )
    found = []
    for number, given in enumerate(sources):
        data = tmp_path / f"data{number}"
        assert prepare(data, *given, "--stop-stage", 3, "--valid-share", 0.2) == 0
        found.append(utterances(data))
    assert found[0] == found[1] == found[2]
    speakers = {split: {item[3] for item in items} for split, items in found[0].items()}
    assert sum(map(len, speakers.values())) == len(set().union(*speakers.values())) == 6
    assert all(speakers.values())
    assert sum(len(items) for items in found[0].values()) == 36 + 2 * len(speakers["train"]) * 6


def test_defects_of_kaldi_folders_and_cuts(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "audio")
    folder = kaldi_dir(tmp_path / "kaldi", tree)
    with open(folder / "segments", "a") as file:
        file.write("s1-late s1 11.5 13.0\ns1-twice s1 1.0 3.0\ns9-lost s9 0.0 1.0\n")
    with open(folder / "text", "a") as file:
        file.write("s1-late alpha\ns1-twice bravo charlie delta echo\ns1-alone echo\n")
    splits = ("--split-file", split_file(tmp_path))
    with open(folder / "utt2spk", "a") as file:
        file.write("s1-twice s1\n")
    assert prepare(tmp_path / "a", "--kaldi-dir", folder, *splits, "--dry-run") == 0
    assert doubts(tmp_path / "a") == {
        "outside-audio": {"s1-late"},
        "text-without-audio": {"s9-lost", "s1-alone"},
        "overlap": {"s1-1", "s1-twice"},
    }
    path = cut_file(tmp_path / "cuts.jsonl.gz", tree)
    cuts = list(CutSet.from_file(path))
    cuts[0] = cuts[0].pad(3.0)
    CutSet.from_cuts(cuts).to_file(path)
    assert prepare(tmp_path / "b", "--cuts", path, *splits, "--dry-run", "--vocab-type", "bpe",
                   "--vocab-size", 5000) == 0  # fmt: skip
    found = doubts(tmp_path / "b")
    assert found == {"unusable-cut": {cuts[0].id}, "no-tokens": {"bpe"}}


def test_every_kind_is_planted_somewhere() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f'"{kind}"' not in source] == []


def test_japanese_of_any_sampling_rate(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "audio")
    for number, rate in enumerate((8000, 22050, 44100)):
        tree.add(f"s1/{number}", rate=rate)
    tree.lines = {n: f"{n} 今日は、　{'一二三四五六'[int(n[-1])]}回。".encode() for n in tree.lines}
    given = (*tree.write(), "--language", "ja", "--normaliser", "japanese", "--split-file",
             split_file(tmp_path), "--stop-stage", 5)  # fmt: skip
    assert prepare(tmp_path / "data", *given) == 0
    folder = DataFolder.read(tmp_path / "data")
    assert (folder.corpus, folder.language, folder.normaliser) == ("own", "ja", "japanese")
    assert folder.units == ("character",)
    cuts = list(read_jsonl(tmp_path / "data/cuts/own_cuts_train.jsonl.gz"))
    texts = {cut["supervisions"][0]["text"] for cut in cuts}
    assert texts == {f"今日は{number}回" for number in "一二三四五六"}
    assert {cut["features"]["num_frames"] for cut in cuts if "_sp" not in cut["id"]} == {200}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give one of --cuts, --kaldi-dir and --audio-dir"),
        (("--cuts", "a", "--kaldi-dir", "b"), "give one of --cuts, --kaldi-dir and --audio-dir"),
        (("--audio-dir", "a"), "--text goes with --audio-dir"),
        (
            ("--kaldi-dir", "KALDI"),
            "1 of 2 entries are commands (first: b: 'sox b.wav |",
        ),
        (("--cuts", "none.jsonl.gz"), "cannot be read as lhotse cuts"),
        (("--kaldi-dir", "nowhere"), "wav.scp' is missing"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wav.scp").write_text("a a.wav\nb sox b.wav |\n")
    given = [str(tmp_path) if word == "KALDI" else word for word in arguments]
    assert prepare(tmp_path / "data", *given) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_too_few_speakers_are_told_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = Tree(tmp_path / "audio")
    tree.lines = {name: line for name, line in tree.lines.items() if name[:2] in ("s1", "s2")}
    given = (*tree.write(), "--allow-bad", 24, "--stop-stage", 3)
    assert prepare(tmp_path / "data", *given) == 1
    assert "2 speakers do not make 3 splits; use --split-by recording" in capsys.readouterr().err
    assert prepare(tmp_path / "data", *given, "--split-by", "recording") == 0
    assert all(utterances(tmp_path / "data").values())
