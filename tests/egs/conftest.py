"""A tiny tree in CSJ's layout: all 75 talks that lhotse wants and three to train on, noise as
audio.
"""

import random
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_training import prepare, run, train_arguments

WORDS = (
    "(F えー)",
    "それ",
    "(D だ)",
    "です",
    "(A 二千;２０００)",
    "人",
    "(W ギーツ;ギジュツ)",
    "の",
    "は",
)
PLAIN = (
    "えー",
    "それ",
    "だ",
    "です",
    "二千",
    "人",
    "ギジュツ",
    "の",
    "は",
)  # disfluent text of WORDS
TRAINING_TALKS = {"A01M2001": "core", "S00F2002": "noncore", "D01M2003": "noncore"}


class _Talk:
    """Rows, word times and length of one talk; channels of a dialogue take turns."""

    def __init__(self, talk: str, num_units: int) -> None:
        rng = random.Random(talk)
        self.rows: list[str] = []
        self.words = ["channel\tsegment\tword\ttext\tstart\tend"]
        time = 0.1
        for number in range(1, num_units + 1):
            channel = "R" if talk.startswith("D") and number % 2 == 0 else "L"
            chosen = [rng.randrange(len(WORDS)) for _ in range(rng.randint(2, 4))]
            start, end = time, time + 0.4 * len(chosen)
            for k, word in enumerate(chosen):
                stamp = f"{number:04d} {start:09.3f}-{end:09.3f} {channel}:-001-{k + 1:03d}"
                row = [f"{len(self.rows):06d}", "", talk, stamp, "", WORDS[word], "", "", "", ""]
                self.rows.append("\t".join([*row, "ヨミ", "名詞"]))
                at = start + 0.4 * k
                plain = f"{number:04d}\t{k + 1}\t{PLAIN[word]}\t{at:.3f}\t{at + 0.4:.3f}"
                self.words.append(f"{channel}\t{plain}")
            time = end + rng.choice([0.3, 1.5])
        self.samples = int(16000 * time)


def write_wav(path: Path, num_samples: int, sample_rate: int = 16000) -> None:
    """White noise, a function of the file's name."""
    rng = np.random.default_rng(list(path.stem.encode()))
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, sample_rate, 0, "NONE", ""))
        file.writeframes(rng.integers(-3000, 3000, num_samples, dtype=np.int16).tobytes())


def _make_corpus(folder: Path, num_units: int = 4) -> Path:
    """Writes the tree; talks are the same whatever `folder` is."""
    csj = pytest.importorskip("lhotse.recipes.csj")
    wanted = [*csj._A01M0056, *csj._VALID, *(talk for talks in csj._EVAL for talk in talks)]
    talks = dict.fromkeys(wanted, "noncore") | TRAINING_TALKS
    for kind in ("MORPH/SDB", "WAV", "WORDS"):
        for part in ("core", "noncore"):
            (folder / kind / part).mkdir(parents=True)
    for talk, part in talks.items():
        made = _Talk(talk, num_units * (4 if talk in TRAINING_TALKS else 1))
        sdb = "".join(f"{row}\n" for row in made.rows)
        (folder / "MORPH/SDB" / part / f"{talk}.sdb").write_bytes(sdb.encode("shift_jis"))
        words = "".join(f"{row}\n" for row in made.words)
        (folder / "WORDS" / part / f"{talk}.tsv").write_text(words, encoding="utf-8")
        for channel in ("-L", "-R") if talk.startswith("D") else ("",):
            write_wav(folder / "WAV" / part / f"{talk}{channel}.wav", made.samples)
    (folder / ".complete").write_text("{}")
    return folder


@pytest.fixture(scope="session")
def make_corpus() -> Callable[[Path, int], Path]:
    """Makes a tiny tree in a folder, with a number of units to a talk."""
    return _make_corpus


@pytest.fixture(scope="session")
def tiny_csj(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny tree, shared by all tests: read only."""
    return _make_corpus(tmp_path_factory.mktemp("tiny") / "csj")


@pytest.fixture
def own_csj(tmp_path: Path) -> Path:
    """A tiny tree to damage."""
    return _make_corpus(tmp_path / "csj")


@pytest.fixture
def make_csj(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a tiny tree of a given name under the test's folder."""
    return lambda name: _make_corpus(tmp_path / name)


@pytest.fixture(scope="session")
def data(tiny_csj: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What prepare.sh makes of the tiny tree: read only."""
    folder = tmp_path_factory.mktemp("pipeline") / "data"
    prepare(tiny_csj, folder)
    return folder


@pytest.fixture(scope="session")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model's training."""
    exp = tmp_path_factory.mktemp("trained") / "exp"
    run("train.py", *train_arguments(data, exp))
    return exp
