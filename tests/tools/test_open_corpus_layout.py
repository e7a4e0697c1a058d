"""The corpus as lhotse's unmodified CSJ recipe reads it: all 75 talks, noise instead of voices."""

import itertools
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lhotse")
pytest.importorskip("pyopenjtalk")
pytest.importorskip("scipy")

import lhotse
from open_corpus.folder import CorpusFolder
from open_corpus.hts import FRAME_SAMPLES, Speech, Voice
from open_corpus.plan import Plan, talks
from open_corpus.presets import preset
from open_corpus.prompts import DemoPrompts
from open_corpus.talk import Studio, render_talk


class _Hummer:
    """Speaks noise: 6 frames a phone, 20 for a silence at the ends."""

    def voice(self, voice: Voice) -> None:
        self.last = voice

    def say(self, labels: Sequence[str], stretch: Sequence[float]) -> Speech:
        frames = np.full(len(labels), 6, np.int64)
        frames[[0, -1]] = 20
        samples = np.random.default_rng(len(labels)).normal(0, 0.1, frames.sum() * FRAME_SAMPLES)
        return Speech(samples.astype(np.float32), frames)


def _plan() -> Plan:
    plan = preset("demo", 3)
    lively = replace(
        plan.disfluency, filler=0.3, fragment=0.2, repair=0.2, lengthening=0.3, numeral_tag=1.0
    )
    short = dict.fromkeys(plan.seconds, 1.5)
    return replace(plan, train_talks=3, dialogue_every=3, seconds=short, disfluency=lively)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan, folder = replace(_plan(), conditions={}), tmp_path_factory.mktemp("open") / "corpus"
    studio = Studio(_Hummer(), DemoPrompts(frozenset("えーとあのま")), {})
    writer = CorpusFolder(folder)
    for talk in talks(plan):
        writer.write_talk(talk, render_talk(talk, plan, studio))
    return folder


@pytest.fixture(scope="module")
def manifests(corpus: Path) -> Path:
    out = corpus.parent / "manifests"
    program = Path(sys.executable).with_name("lhotse")
    command = [
        str(program),
        "prepare",
        "csj",
        str(corpus),
        str(out),
        "-t",
        str(corpus.parent / "t"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return out


def _word_rows(corpus: Path) -> dict[str, list[tuple[str, float, float]]]:
    """Segment id as lhotse's -> its words."""
    rows: dict[str, list[tuple[str, float, float]]] = defaultdict(list)
    for path in corpus.glob("WORDS/*/*.tsv"):
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            channel, segment, _, text, start, end = line.split("\t")
            speaker = f"{path.stem}-{channel}" if path.stem.startswith("D") else path.stem
            rows[f"{speaker}_{segment}"].append((text, float(start), float(end)))
    return rows


def test_every_part_has_its_recordings(manifests: Path) -> None:
    counts = {}
    for part in ("core", "noncore", "valid", "eval1", "eval2", "eval3", "excluded"):
        found = lhotse.load_manifest(manifests / f"csj_recordings_{part}.jsonl.gz")
        counts[part] = len(found)
        assert all(r.sampling_rate == 16000 and r.num_channels == 1 for r in found)
    assert counts["eval1"] == counts["eval2"] == counts["eval3"] == 10
    assert counts["valid"] == 40 and counts["excluded"] == 10  # dialogues count twice
    assert counts["core"] == 1 and counts["noncore"] == 3


def test_words_make_lhotses_text_and_lie_in_their_segment(corpus: Path, manifests: Path) -> None:
    rows, seen, tags = _word_rows(corpus), set(), set()
    for path in manifests.glob("csj_supervisions_*.jsonl.gz"):
        for supervision in lhotse.load_manifest(path):
            words = rows[supervision.id]
            seen.add(supervision.id)
            tags.update(supervision.custom["disfluent_tag"].split(","))
            assert "".join(text for text, _, _ in words) == supervision.text
            assert supervision.text == supervision.custom["disfluent"]
            edges = [time for _, *times in words for time in times]
            assert edges == sorted(edges)
            assert words[0][1] == pytest.approx(supervision.start + 0.04, abs=2e-3)
            assert words[-1][2] == pytest.approx(supervision.end - 0.04, abs=2e-3)
            assert all(end > start for _, start, end in words)
    assert seen == set(rows)
    assert {"F", "D", "D2", "A"} <= tags


def test_word_files_avoid_the_traps(corpus: Path) -> None:
    for path in corpus.glob("MORPH/SDB/*/*.sdb"):
        text = path.read_bytes().decode("shift_jis")
        assert text.endswith("\n") and not text.endswith("\n\n")
        for line in text.splitlines():
            fields = line.split("\t")
            assert len(fields) == 17
            bare = fields[5].translate(str.maketrans("", "", "(F D2A;) "))
            assert not any(ord(x) < 128 for x in bare), fields[5]
            assert fields[2] == path.stem


def test_segments_are_in_time_order_and_apart(corpus: Path) -> None:
    for path in corpus.glob("MORPH/SDB/*/*.sdb"):
        times = [x.split("\t")[3].split() for x in path.read_text("shift_jis").splitlines()]
        spans = sorted({(n, *map(float, span.split("-"))) for n, span, _ in times})
        assert [int(n) for n, _, _ in spans] == list(range(1, len(spans) + 1))
        ends_and_starts = itertools.pairwise(spans)
        assert all(after[1] - before[2] >= 0.1999 for before, after in ends_and_starts)


def test_margins_of_the_audio_are_the_words(corpus: Path) -> None:
    """The hummer's noise starts 40 ms before the first word and ends 40 ms after the last."""
    lhotse_audio = pytest.importorskip("soundfile")
    talk = next(t for t in talks(_plan()) if t.split == "eval1")
    samples, rate = lhotse_audio.read(corpus / "WAV" / talk.volume / f"{talk.id}.wav")
    first, *_ = _word_rows(corpus)[f"{talk.id}_0001"]
    loud = np.flatnonzero(np.abs(samples) > 0.02)
    assert loud[0] / rate == pytest.approx(first[1] - 0.04, abs=0.005)


def test_rendering_is_a_function_of_the_plan() -> None:
    plan = replace(_plan(), conditions={})
    (talk,) = (t for t in talks(plan) if t.id == "D03F0058")
    prompts = DemoPrompts(frozenset("えーとあのま"))
    one, other = (render_talk(talk, plan, Studio(_Hummer(), prompts, {})) for _ in range(2))
    assert one.rows == other.rows and one.words == other.words and one.record == other.record
    assert {row.channel for row in one.rows} == {"L", "R"}
    for channel, audio in one.audio.items():
        np.testing.assert_array_equal(audio, other.audio[channel])
