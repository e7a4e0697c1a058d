"""`DataModule`: the data folder that prepare.sh wrote -> batches for training, validation and
decoding.

Batching by lhotse's DynamicBucketingSampler over precomputed features. Training leaves out, by
name, utterances that have no CTC alignment (fewer encoder frames than tokens and the blanks
between repeats).
"""

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset import SimpleCutSampler
from torch import Tensor

from dualasr_lib.core.ctc_frames import ctc_frames
from dualasr_lib.core.files import file_hash
from dualasr_lib.data.augment import AugmentConfig, Augmenter
from dualasr_lib.data.batch import Batch, Example, collate
from dualasr_lib.data.sampling import BatchKey, TrainBatches, balanced_sampler
from dualasr_lib.data.tokenizer import Tokenizer

__all__ = ["DataConfig", "DataModule", "Refused", "Utterance", "Word"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How batches are made."""

    max_duration: float = 200.0
    """Seconds of audio in a batch at most, padding not counted."""
    num_buckets: int = 10
    """Buckets of similar duration that batches are drawn from."""
    buffer_size: int = 20000
    """Utterances among which a batch is drawn."""
    num_workers: int = 2
    """Processes that load features; 0 loads in the main process. Batches are the same."""
    min_frames: int = 9
    """Shorter training utterances are left out."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        for name in ("max_duration", "num_buckets", "buffer_size"):
            if getattr(self, name) <= 0:
                raise ValueError(f"'{name}' must be greater than 0, is {getattr(self, name)}")
        if self.num_workers < 0:
            raise ValueError(f"'num_workers' must be at least 0, is {self.num_workers}")


class Refused(NamedTuple):
    """A training utterance that is left out."""

    id: str
    reason: str


class Word(NamedTuple):
    """One spoken word; times in seconds from the utterance's start."""

    text: str
    start: float
    end: float


class Utterance(NamedTuple):
    """One utterance with its audio, for the streaming simulation."""

    id: str
    text: str
    duration: float  # seconds
    audio: Callable[[], Tensor]  # reads the samples, (n,) float32 in [-1, 1]
    words: tuple[Word, ...]  # empty if the corpus has no word times


class DataModule:
    """Reads `DATA/cuts/csj_cuts_<split>.jsonl.gz` and the features these name.

    Args:
        config: how batches are made.
        data_dir: the folder DATA.
        tokenizer: of `DATA/lang`.
        subsampled_lens: feature frames (N,) -> encoder frames (N,) of the model to train; None
        keeps
            utterances whatever their alignment.
    """

    def __init__(
        self,
        config: DataConfig,
        data_dir: Path,
        tokenizer: Tokenizer,
        subsampled_lens: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._config = config
        self._data_dir = Path(data_dir)
        self._tokenizer = tokenizer
        self._subsampled_lens = subsampled_lens
        self._known_lens: dict[int, int] = {}
        self._refused: dict[str, Refused] | None = None

    def train_batches(
        self, seed: int, rank: int | None = None, world_size: int | None = None
    ) -> TrainBatches:
        """Augmented, shuffled batches of split `train`; rank and world size default to
        torchrun's.
        """
        refused = frozenset(item.id for item in self.refused())
        cuts = self._cuts("train").filter(partial(_is_kept, refused))
        noise = self._config.augment.noise_cuts
        augmenter = Augmenter(
            self._config.augment, self._manifest(self._data_dir / noise) if noise else None
        )
        sampler = balanced_sampler(
            cuts,
            max_duration=self._config.max_duration,
            num_buckets=self._config.num_buckets,
            buffer_size=self._config.buffer_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        make_batch = partial(_training_batch, self._tokenizer, augmenter)
        fingerprint = self._fingerprint(seed, sampler.world_size)
        return TrainBatches(sampler, make_batch, self._config.num_workers, fingerprint)

    def refused(self) -> tuple[Refused, ...]:
        """The utterances of split `train` that training leaves out, and why."""
        if self._refused is None:
            self._refused = {item.id: item for item in self._find_refused()}
        return tuple(self._refused.values())

    def valid_batches(self) -> Iterator[Batch]:
        """Batches of split `valid`: see `split_batches`."""
        return self.split_batches("valid")

    def split_batches(self, split: str) -> Iterator[Batch]:
        """All utterances of a split, longest first, without augmentation, always the same
        batches.
        """
        cuts = self._cuts(split).sort_by_duration(ascending=False)
        sampler = SimpleCutSampler(
            cuts, max_duration=self._config.max_duration, shuffle=False, world_size=1, rank=0
        )
        for batch in sampler:
            yield _batch(self._tokenizer, batch)

    def split_cuts(self, split: str) -> list[Utterance]:
        """All utterances of a split, in the manifest's order, with their audio and words."""
        return [_utterance(cut) for cut in self._cuts(split)]

    def fingerprint(self, split: str) -> str:
        """Of a split's manifest: ids, texts, times."""
        self._cuts(split)  # or the message for a missing file
        return file_hash(self._data_dir / "cuts" / f"csj_cuts_{split}.jsonl.gz")

    def _cuts(self, split: str) -> CutSet:
        return self._manifest(self._data_dir / "cuts" / f"csj_cuts_{split}.jsonl.gz")

    def _manifest(self, path: Path) -> CutSet:
        if not path.is_file():
            raise ValueError(f"'{path}' is missing; prepare.sh stage 4 writes the cuts")
        return CutSet.from_jsonl_lazy(path).with_features_path_prefix(self._data_dir)

    def _fingerprint(self, seed: int, world_size: int) -> str:
        """Of everything that decides which utterances make a batch."""
        manifest = self.fingerprint("train")
        config = self._config
        options = (config.max_duration, config.num_buckets, config.buffer_size, config.augment)
        options_hash = hashlib.sha256(repr(options).encode()).hexdigest()
        parts = (manifest, options_hash[:12], len(self.refused()))
        return f"seed {seed}, {world_size} ranks, data {'/'.join(map(str, parts))}"

    def _find_refused(self) -> Iterator[Refused]:
        """One pass over the manifest's JSON lines (building cut objects would take much longer)."""
        self._cuts("train")  # or the message for a missing file
        with gzip.open(
            self._data_dir / "cuts" / "csj_cuts_train.jsonl.gz", "rt", encoding="utf-8"
        ) as lines:
            for line in lines:
                cut = json.loads(line)
                text = cut["supervisions"][0]["text"]
                reason = self._why_refused(cut["features"]["num_frames"], text)
                if reason:
                    yield Refused(cut["id"], reason)

    def _encoder_frames(self, num_frames: int) -> int:
        if num_frames not in self._known_lens:
            assert self._subsampled_lens is not None
            lens = self._subsampled_lens(torch.tensor([num_frames]))
            self._known_lens[num_frames] = int(lens[0])
        return self._known_lens[num_frames]

    def _why_refused(self, num_frames: int, text: str) -> str:
        if num_frames < self._config.min_frames:
            return f"{num_frames} frames, fewer than {self._config.min_frames}"
        if self._subsampled_lens is None:
            return ""
        tokens = self._tokenizer.encode(text)
        encoder_frames = self._encoder_frames(num_frames)
        needed = ctc_frames(tokens)
        if encoder_frames >= needed:
            return ""
        repeats = needed - len(tokens)
        return f"{encoder_frames} encoder frames for {len(tokens)} tokens and {repeats} repeats"


def _is_kept(refused: frozenset[str], cut: Cut) -> bool:
    return cut.id not in refused


def _training_batch(tokenizer: Tokenizer, augmenter: Augmenter, key: BatchKey) -> Batch:
    cuts = augmenter.mix_noise(key.cuts, key.randomness)
    examples = [_example(tokenizer, cut) for cut in cuts]
    masked = augmenter.mask([example.features for example in examples], key.randomness)
    return collate([e._replace(features=x) for e, x in zip(examples, masked, strict=True)])


def _batch(tokenizer: Tokenizer, cuts: CutSet) -> Batch:
    return collate([_example(tokenizer, cut) for cut in cuts])


def _example(tokenizer: Tokenizer, cut: Cut) -> Example:
    text = cut.supervisions[0].text
    return Example(
        id=cut.id,
        text=text,
        duration=cut.duration,
        features=torch.from_numpy(cut.load_features()).to(torch.float32),
        tokens=tuple(tokenizer.encode(text)),
    )


def _utterance(cut: Cut) -> Utterance:
    supervision = cut.supervisions[0]
    words = tuple(
        Word(item.symbol, item.start, item.end)
        for item in (supervision.alignment or {}).get("word", ())
    )
    return Utterance(cut.id, supervision.text, cut.duration, partial(_load_audio, cut), words)


def _load_audio(cut: Cut) -> Tensor:
    try:
        samples = cut.load_audio()
    except Exception as error:  # whatever lhotse's audio back end raises
        raise ValueError(f"the audio of {cut.id} cannot be read: {error}") from error
    return torch.from_numpy(samples[0])
