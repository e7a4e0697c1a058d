"""Made-up data folders and texts of any size, and what starting to train on them costs.

No audio is read: the batches' keys are drawn, nothing is made of them. Utterances are 2 to 18 s
long, 10 s on average, with 5 characters a second and the times of their words (3 a second), as
CSJ's manifest has them after stage 3. Words are drawn by Zipf's law and follow one another by
chance, so that there are more different n-grams than in speech.
"""

import gzip
import itertools
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from bench.memory import peak_memory
from dualasr_lib.data.data_config import DataConfig
from dualasr_lib.data.datamodule import DataModule
from dualasr_lib.data.folder import DataFolder, SplitInfo, TokensInfo
from dualasr_lib.data.lengths import keep_lengths, look_through
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.model.encoder import encoder_lens
from dualasr_lib.recipe.kneser_ney import write_ngram

__all__ = ["BUFFER", "SECONDS", "Prepared", "Start", "StartJob", "encoder_frames", "measure_ngram",
           "measure_preparation", "measure_start", "write_data"]  # fmt: skip

SECONDS = 10.0
"""Of an utterance, on average."""
BUFFER = DataConfig().buffer_size
"""Utterances that the sampler holds."""
_KINDS = 1000  # of different utterances; the others differ from them in id and talk
_TALK = 70  # utterances of one talk
_WORDS = 20_000


class StartJob(NamedTuple):
    """One preparation, or one start of training."""

    data_dir: Path
    batches: int
    """How many are drawn after the first."""
    found: Path
    """Where the seconds are written."""


class Prepared(NamedTuple):
    """What it cost prepare.sh to keep how long the utterances are."""

    seconds: float
    peak: int
    """Bytes, at the most."""


class Start(NamedTuple):
    """What a start of training cost, of data that are prepared."""

    checked: float
    """Seconds until it is known which utterances are left out, and how many there are."""
    first: float
    """Seconds to the first batch, those included."""
    batch: float
    """Milliseconds of each batch after it."""
    peak: int
    """Bytes, at the most."""


def write_data(data_dir: Path, count: int) -> None:
    """A data folder with one utterance for validation and `count` for training."""
    kinds = [_utterance(random.Random(i)) for i in range(min(count, _KINDS))]
    cuts = [json.dumps(cut, ensure_ascii=False) for cut in kinds]
    (data_dir / "cuts").mkdir()
    for name, size in (("train", count), ("valid", 1)):
        path = data_dir / "cuts" / f"{name}.jsonl.gz"
        with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as file:
            for i in range(size):
                line = cuts[i % len(cuts)].replace("TALK", f"{i // _TALK:06d}")
                file.write(line.replace("NUMBER", f"{i:07d}") + "\n")
    tokenizer = Tokenizer.train([cut["supervisions"][0]["text"] for cut in kinds])
    tokenizer.save(data_dir / "lang")
    DataFolder(
        corpus="made-up", language="ja", normaliser="none", units=("character",), features={},
        splits=(SplitInfo(name="train", use="train", cuts="cuts/train.jsonl.gz"),
                SplitInfo(name="valid", use="valid", cuts="cuts/valid.jsonl.gz")),
        tokens=TokensInfo(kind="char", vocab_size=tokenizer.vocab_size),
    ).write(data_dir)  # fmt: skip


def measure_preparation(job: StartJob) -> Prepared:
    """In a process of its own."""
    peak = peak_memory(_prepare, job).peak
    (seconds,) = json.loads(job.found.read_text(encoding="utf-8"))
    return Prepared(seconds, peak)


def measure_start(job: StartJob) -> Start:
    """In a process of its own."""
    peak = peak_memory(_start, job).peak
    checked, first, batch = json.loads(job.found.read_text(encoding="utf-8"))
    return Start(checked, first, batch, peak)


def encoder_frames(frames: Tensor) -> Tensor:
    """Feature frames (N,) -> encoder frames (N,) of the published encoders."""
    return encoder_lens(frames)


class _NgramJob(NamedTuple):
    characters: int
    order: int
    folder: Path


def measure_ngram(characters: int, order: int, folder: Path) -> tuple[float, int]:
    """Seconds and bytes (peak) of stage 6's n-gram of a text of so many characters."""
    peak = peak_memory(_ngram, _NgramJob(characters, order, folder)).peak
    return float((folder / "seconds").read_text(encoding="utf-8")), peak


def _prepare(job: StartJob) -> None:
    began = time.process_time()
    manifest = job.data_dir / DataFolder.read(job.data_dir).used_for("train").cuts
    tokenizer = Tokenizer.load(job.data_dir / "lang")
    keep_lengths(manifest, tokenizer, look_through(manifest, tokenizer))
    job.found.write_text(json.dumps([time.process_time() - began]), encoding="utf-8")


def _start(job: StartJob) -> None:
    began = time.process_time()
    config = DataConfig(features="computed", num_workers=0)
    tokenizer = Tokenizer.load(job.data_dir / "lang")
    module = DataModule(config, job.data_dir, tokenizer, encoder_frames, extract=_no_audio)
    module.refused()
    checked = time.process_time()
    keys = iter(module.train_batches(seed=1).keys())
    next(keys)
    first = time.process_time()
    drawn = sum(1 for _ in itertools.islice(keys, job.batches))
    batch = 1000 * (time.process_time() - first) / max(drawn, 1)
    job.found.write_text(json.dumps([checked - began, first - began, batch]), encoding="utf-8")


def _no_audio(_: Tensor) -> Tensor:
    raise AssertionError("no audio is read")


def _ngram(job: _NgramJob) -> None:
    text = job.folder / "pieces.txt"
    with open(text, "w", encoding="utf-8") as file:
        for line in _lines(job.characters):
            print(" ".join(line), file=file)
    began = time.process_time()
    write_ngram(text, job.order, job.folder / "G.arpa")
    (job.folder / "seconds").write_text(str(time.process_time() - began), encoding="utf-8")


def _lines(characters: int) -> Iterator[str]:
    rng, written = random.Random(1), 0
    while written < characters:
        line = "".join(_words(rng, round(3 * SECONDS)))[: characters - written]
        written += len(line)
        yield line


def _words(rng: random.Random, count: int) -> list[str]:
    """Word n of `_WORDS` is always the same, and drawn with a probability of about 1 / n."""
    numbers = [int(_WORDS ** rng.random()) for _ in range(count)]
    return [_word(number) for number in numbers]


def _word(number: int) -> str:
    rng = random.Random(number)
    size = rng.choice((1, 1, 2, 2))
    return "".join(chr(0x4E00 + int(2500 ** rng.random()) - 1) for _ in range(size))


def _utterance(rng: random.Random) -> dict[str, Any]:
    """A cut as stage 3 writes it with `--features none`."""
    duration = round(rng.uniform(2.0, 2 * SECONDS - 2.0), 2)
    words = _words(rng, round(3 * duration))
    each = duration / len(words)
    aligned = [[word, round(i * each, 7), round(each, 7), None] for i, word in enumerate(words)]
    text, talk = "".join(words), "talk-TALK"
    tagged = {"disfluent": text, "disfluent_tag": "," * len(text), "fluent": text}
    supervision = {
        "id": "utt-NUMBER", "recording_id": talk, "start": 0.0, "duration": duration, "channel": 0,
        "text": text, "language": "Japanese", "speaker": talk, "gender": "Male", "custom": tagged,
        "alignment": {"word": aligned},
    }  # fmt: skip
    source = {"type": "file", "channels": [0], "source": f"/corpus/WAV/noncore/{talk}.wav"}
    recording = {
        "id": talk, "sources": [source], "sampling_rate": 16000, "num_samples": 16_000_000,
        "duration": 1000.0, "channel_ids": [0],
    }  # fmt: skip
    return {
        "id": "utt-NUMBER", "start": 11.31725, "duration": duration, "channel": 0,
        "supervisions": [supervision], "recording": recording, "type": "MonoCut",
    }  # fmt: skip
