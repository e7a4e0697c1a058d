"""`DataModule`: the data folder that prepare.sh wrote -> batches for training, validation and
decoding.

Batching by lhotse's DynamicBucketingSampler over precomputed features. Training leaves out, by
name, utterances that have no CTC alignment (fewer encoder frames than tokens and the blanks
between repeats).
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lhotse import CutSet, MonoCut, Recording
from lhotse.cut import Cut
from lhotse.dataset import SimpleCutSampler
from lhotse.utils import fastcopy
from torch import Tensor

from dualasr_lib.core.files import AnyPath, file_hash
from dualasr_lib.core.program import told_by
from dualasr_lib.data.augment import Augmenter
from dualasr_lib.data.batch import Batch, Example, collate
from dualasr_lib.data.data_config import DataConfig
from dualasr_lib.data.folder import DataFolder
from dualasr_lib.data.lengths import Lengths, keep_lengths, look_through, recall
from dualasr_lib.data.manifest import Entry, check_stored, read_entries
from dualasr_lib.data.sampling import BatchKey, Dealt, TrainBatches, balanced_sampler
from dualasr_lib.data.shards import Shards, shar_folder
from dualasr_lib.data.sphere import reading
from dualasr_lib.data.tokenizer import Tokenizer

__all__ = ["DataModule", "Refused", "Utterance", "Word"]


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
    """Reads the utterances of the splits that `DATA/data.json` lists, and their features.

    Attributes:
        folder: what the data folder says of itself.

    Args:
        config: how batches are made.
        data_dir: the folder DATA.
        tokenizer: of `DATA/lang`.
        subsampled_lens: feature frames (N,) -> encoder frames (N,) of the model to train; None
            keeps utterances whatever their alignment.
        extract: samples (n,) -> features (T, F); needed where `config.features` are computed.
    """

    def __init__(
        self,
        config: DataConfig,
        data_dir: AnyPath,
        tokenizer: Tokenizer,
        subsampled_lens: Callable[[Tensor], Tensor] | None = None,
        extract: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._config = config
        self._stored = config.features == "stored"
        self._in_files = config.storage == "files"
        self._features = _stored_features
        if not self._stored:
            assert extract is not None, "features that are computed need somebody to compute them"
            self._features = partial(_computed_features, extract)
        self._data_dir = Path(data_dir)
        self.folder = DataFolder.read(self._data_dir)
        self._tokenizer = tokenizer
        self._subsampled_lens = subsampled_lens
        self._refused: dict[str, Refused] | None = None
        self._counts: dict[Path, int] = {}

    def train_batches(
        self, seed: int, rank: int | None = None, world_size: int | None = None
    ) -> TrainBatches:
        """Augmented, shuffled batches of the split for training; rank and world size default to
        torchrun's.
        """
        split = self.folder.used_for("train").name
        refused = frozenset(item.id for item in self.refused())
        kept = self._count_checked(self._file(split)) - len(refused)
        if not kept:
            raise ValueError(
                f"'{self._file(split)}' must have utterances to train on, but has none"
                + (f" beside {len(refused)} that are left out" if refused else "")
            )
        shards = None if self._in_files else self._shards(split, seed)
        cuts = self._listed(split) if shards is None else shards.cuts()
        cuts = cuts.filter(partial(_is_kept, refused))
        noise = self._config.augment.noise_cuts
        augmenter = Augmenter(
            self._config.augment, self._noise(self._data_dir / noise) if noise else None
        )
        sample = partial(
            balanced_sampler,
            cuts,
            max_duration=self._config.max_duration,
            num_buckets=min(self._config.num_buckets, kept),
            buffer_size=self._config.buffer_size,
            seed=seed,
        )

        def deal(ranks: int) -> Dealt:
            samplers = [sample(rank=each, world_size=ranks) for each in range(ranks)]
            return Dealt(samplers, self._fingerprint(seed, ranks))

        sampler = sample(rank=rank, world_size=world_size)
        make_batch = partial(_training_batch, self._tokenizer, self._features, augmenter)
        fingerprint = self._fingerprint(seed, sampler.world_size)
        return TrainBatches(
            sampler, make_batch, self._config.num_workers, fingerprint, deal, shards
        )

    def refused(self) -> tuple[Refused, ...]:
        """The utterances of the split for training that are left out, and why."""
        if self._refused is None:
            path = self._file(self.folder.used_for("train").name)
            lengths = recall(path, self._tokenizer)
            if lengths is None or not self._has_features(lengths):
                lengths = look_through(path, self._tokenizer, self._check_of(path))
                keep_lengths(path, self._tokenizer, lengths)
            self._counts[path] = len(lengths.frames)
            self._refused = {item.id: item for item in self._why_refused(lengths)}
        return tuple(self._refused.values())

    def valid_batches(self, rank: int = 0, size: int = 1) -> Iterator[Batch]:
        """Batches of the split for validation: see `split_batches`; none if it is empty."""
        split = self.folder.used_for("valid").name
        empty = not self._count_checked(self._file(split))
        return iter(()) if empty else self.split_batches(split, rank, size)

    def split_batches(self, split: str, rank: int = 0, size: int = 1) -> Iterator[Batch]:
        """All utterances of a split, longest first, without augmentation, always the same
        batches; of them number rank, rank + size ... (from 0).

        Raises:
            ValueError: the split is empty, or its manifest or features cannot be read.
        """
        cuts = self._some_cuts(split)
        if not self._in_files:
            cuts = self._shards(split, None).cuts()
        cuts = cuts.sort_by_duration(ascending=False)
        sampler = SimpleCutSampler(
            cuts, max_duration=self._config.max_duration, shuffle=False, world_size=1, rank=0
        )
        for batch in islice(sampler, rank, None, size):
            yield _batch(self._tokenizer, self._features, batch)

    def size(self, split: str) -> int:
        """Utterances of a split."""
        return sum(1 for _ in self._listed(split))

    def split_cuts(self, split: str) -> list[Utterance]:
        """All utterances of a split, in the manifest's order, with their audio and words.

        Raises:
            ValueError: the split is empty, or its manifest cannot be read.
        """
        return [_utterance(cut) for cut in self._some_cuts(split)]

    def fingerprint(self, split: str) -> str:
        """Of a split's manifest: ids, texts, times."""
        self._listed(split)  # or the message for a missing or damaged file
        return file_hash(self._file(split))

    def _file(self, split: str) -> Path:
        return self._data_dir / self.folder.split(split).cuts

    def _some_cuts(self, split: str) -> CutSet:
        if not self._count_checked(self._file(split)):
            raise ValueError(f"split '{split}' has no utterances ('{self._file(split)}' is empty)")
        return self._listed(split)

    def _listed(self, split: str) -> CutSet:
        """Those of its manifest."""
        path = self._file(split)
        self._count_checked(path)
        return self._opened(path)

    def _shards(self, split: str, seed: int | None) -> Shards:
        return Shards(shar_folder(self._data_dir, split), seed)

    def _noise(self, path: Path) -> CutSet:
        for _ in self._entries(path, with_text=False):
            pass
        return self._opened(path)

    def _opened(self, path: Path) -> CutSet:
        cuts = CutSet.from_jsonl_lazy(path)
        if self._stored:
            return cuts.with_features_path_prefix(self._data_dir)
        return cuts.map(_without_features)

    def _count_checked(self, path: Path) -> int:
        """Utterances of a manifest, which is checked when it is asked for first."""
        if path not in self._counts:
            self._counts[path] = sum(1 for _ in self._entries(path))
        return self._counts[path]

    def _entries(self, path: Path, with_text: bool = True) -> Iterator[Entry]:
        """The lines of a manifest; features that are to be read are there."""
        check = self._check_of(path)
        for entry in read_entries(path, with_text):
            check(entry)
            yield entry

    def _check_of(self, path: Path) -> Callable[[Entry], None]:
        """What raises for a line of `path` whose features are to be read and are not there."""
        files: set[str] = set()
        bins = self.folder.features.get("num_mel_bins")

        def check(entry: Entry) -> None:
            if self._stored and self._in_files:
                check_stored(self._data_dir, path, entry, bins, files)

        return check

    def _fingerprint(self, seed: int, world_size: int) -> str:
        """Of everything that decides which utterances make a batch."""
        manifest = self.fingerprint(self.folder.used_for("train").name)
        config = self._config
        options: tuple[Any, ...] = (config.max_duration, config.num_buckets, config.buffer_size)
        options += (config.augment,) if self._stored else (config.augment, config.features)
        options += () if self._in_files else (config.storage, self._shar_size())
        options_hash = hashlib.sha256(repr(options).encode()).hexdigest()
        parts = (manifest, options_hash[:12], len(self.refused()))
        return f"seed {seed}, {world_size} ranks, data {'/'.join(map(str, parts))}"

    def _shar_size(self) -> int:
        """Shards of the split for training."""
        split = self.folder.used_for("train").name
        return len(list(shar_folder(self._data_dir, split).glob("cuts.*.jsonl.gz")))

    def _has_features(self, lengths: Lengths) -> bool:
        """Those that are to be read are there."""
        if not (self._stored and self._in_files):
            return True
        bins = self.folder.features.get("num_mel_bins")
        fits = lengths.bins != -1 and bins in (None, lengths.bins)
        return fits and all((self._data_dir / file).is_file() for file in lengths.files)

    def _why_refused(self, lengths: Lengths) -> Iterator[Refused]:
        """Utterances that are shorter than they may be, or have no CTC alignment."""
        frames, tokens, repeats = lengths.frames, lengths.tokens, lengths.repeats
        short = frames < self._config.min_frames
        encoded = frames
        if self._subsampled_lens is not None:
            known, where = np.unique(frames, return_inverse=True)
            lens = self._subsampled_lens(torch.from_numpy(known.astype(np.int64)))
            encoded = lens.numpy()[where]
            misfit = encoded < tokens + repeats
        else:
            misfit = np.zeros_like(short)
        numbers = np.flatnonzero(short | misfit)
        ids = lengths.ids_of(numbers) if len(numbers) else []
        for n, id_ in zip(numbers, ids, strict=True):
            if short[n]:
                why = f"{frames[n]} frames, fewer than {self._config.min_frames}"
            else:
                why = f"{encoded[n]} encoder frames for {tokens[n]} tokens and {repeats[n]} repeats"
            yield Refused(id_, why)


def _is_kept(refused: frozenset[str], cut: Cut) -> bool:
    return cut.id not in refused


def _training_batch(
    tokenizer: Tokenizer, features: "_Features", augmenter: Augmenter, key: BatchKey
) -> Batch:
    cuts = augmenter.mix_noise(key.cuts, key.randomness)
    examples = [_example(tokenizer, features, cut) for cut in cuts]
    masked = augmenter.mask([example.features for example in examples], key.randomness)
    return collate([e._replace(features=x) for e, x in zip(examples, masked, strict=True)])


def _batch(tokenizer: Tokenizer, features: "_Features", cuts: CutSet) -> Batch:
    return collate([_example(tokenizer, features, cut) for cut in cuts])


def _example(tokenizer: Tokenizer, features: "_Features", cut: Cut) -> Example:
    text = cut.supervisions[0].text
    return Example(
        id=cut.id,
        text=text,
        duration=cut.duration,
        features=features(cut),
        tokens=tuple(tokenizer.encode(text)),
    )


_Features = Callable[[Cut], Tensor]
"""An utterance -> its features (T, F), float32."""


def _computed_features(extract: Callable[[Tensor], Tensor], cut: Cut) -> Tensor:
    samples = _load_audio(cut)
    try:
        features = extract(samples)
    except ValueError as error:
        raise ValueError(f"the audio of {cut.id} gives no features: {error}") from error
    if not features.isfinite().all():
        raise ValueError(f"the audio of {cut.id} must be finite, but has NaN or infinity")
    return features


def _without_features(cut: Cut) -> Cut:
    return fastcopy(cut, features=None)


def _stored_features(cut: Cut) -> Tensor:
    where = f"the features of '{cut.id}'"
    if isinstance(cut, MonoCut):  # noise mixed in has a file of its own
        where += f" in '{cut.features.storage_path}'"
    try:
        features = torch.from_numpy(cut.load_features()).to(torch.float32)
    except Exception as error:  # whatever lhotse and lilcom raise
        why = told_by(str(error)) if str(error) else type(error).__name__
        raise ValueError(f"{where} cannot be read: {why}; make stage 4 again") from error
    wanted = cut.num_features
    if features.dim() != 2 or features.shape[1] != wanted or not len(features):
        raise ValueError(f"{where} must be (T, {wanted}), but are {tuple(features.shape)}")
    if not features.isfinite().all():
        raise ValueError(f"{where} must be finite, but have NaN or infinity; make stage 4 again")
    return features


def _utterance(cut: Cut) -> Utterance:
    supervision = cut.supervisions[0]
    words = tuple(
        Word(item.symbol, item.start, item.end)
        for item in (supervision.alignment or {}).get("word", ())
    )
    return Utterance(cut.id, supervision.text, cut.duration, partial(_load_audio, cut), words)


def _recordings(cut: Cut) -> list[Recording]:
    """One, or with noise mixed in several."""
    parts = [cut] if isinstance(cut, MonoCut) else [track.cut for track in cut.tracks]
    return [part.recording for part in parts if isinstance(part, MonoCut)]


def _load_audio(cut: Cut) -> Tensor:
    try:
        with ExitStack() as readers:
            for recording in _recordings(cut):
                readers.enter_context(reading(recording))
            samples = cut.load_audio()
    except Exception as error:  # whatever lhotse's audio back end raises
        why = told_by(str(error)) if str(error) else type(error).__name__
        raise ValueError(
            f"the audio of {cut.id} cannot be read: {why}; if the corpus has moved, run"
            " prepare.sh with its new folder"
        ) from error
    return torch.from_numpy(samples[0])
