"""Decodes the points of a latency curve with one loaded model: the streaming branch by chunks of
several lengths, and the full branch on whole sentences.

The search, and its scales if it has any, are those of the configuration's chunk for all points: a
curve shows what the chunk does, not what tuning does.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from analysis.latency.cells import Cell, Decode, Made, obtain
from analysis.latency.report import Point, pool
from dualasr_lib.core.progress import Progress
from dualasr_lib.data.datamodule import DataModule, Utterance
from dualasr_lib.decoding.hypothesis import Emission, Hypothesis
from dualasr_lib.decoding.offline import OfflineSearch, decode_batches
from dualasr_lib.decoding.streaming import (
    OnlineSearch,
    StreamingConfig,
    StreamingRun,
    Watcher,
    decode_streams,
)
from dualasr_lib.decoding.summary import (
    RunInfo,
    describe,
    latency_summary,
    offline_summary,
    streaming_summary,
)
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.programs.data import identity_of
from dualasr_lib.recognition.decode_setup import DecodeSetup, ReadyOnline
from dualasr_lib.recognition.methods.registry import DEFAULT, find
from dualasr_lib.recognition.scoring import scoring_of
from dualasr_lib.recognition.trained_model import StreamingPath

__all__ = ["Curve", "Plan", "shown_at_the_end"]


class Plan(NamedTuple):
    """What the curve is made of."""

    splits: Sequence[str]
    chunks_ms: Sequence[int]
    num_streams: int
    left_ms: int | None
    """None: the configuration's."""


class Curve:
    """Makes points; everything that can be wrong with the plan is found before the first one.

    Raises:
        ValueError: a split that is missing, a chunk or left context that the model cannot run, or
            options that the search does not know.
    """

    def __init__(self, setup: DecodeSetup, data: DataModule, plan: Plan, out: Path) -> None:
        self._setup, self._data, self._plan, self._out = setup, data, plan, out
        self._method = setup.config.methods[0]
        self._config = StreamingConfig(num_streams=plan.num_streams)
        self._utterances = {split: data.split_cuts(split) for split in plan.splits}
        trained = setup.trained
        self._chunks = [trained.chunk(ms, plan.left_ms) for ms in sorted(set(plan.chunks_ms))]
        for chunk in self._chunks:
            trained.model.streaming.check(chunk)
        self._params = {
            "weights": trained.fingerprint,
            "device": str(trained.device),
            "num_threads": torch.get_num_threads(),
        }

    def points(self) -> list[Point]:
        """All points: growing chunks, then the full branch if the model has one."""
        self._out.mkdir(parents=True, exist_ok=True)  # fails before the work, not after it
        trained = self._setup.trained
        ready = self._setup.online(self._method)
        # The full branch first: `streaming` makes whole utterances slower.
        full = self._full_cells() if "full" in trained.model.branches else []
        paths = [(chunk, trained.streaming(chunk)) for chunk in self._chunks]
        points = [self._streaming(*item, ready) for item in paths]
        if full:
            # Nothing of a path but its algorithmic latency is asked, which means nothing here.
            latency = {**self._latency(full, paths[0][1]), "algorithmic_ms": None}
            points.append(pool(full, latency))
        return points

    def _streaming(
        self,
        chunk: ChunkSpec,
        path: StreamingPath,
        ready: ReadyOnline,
    ) -> Point:
        trained = self._setup.trained
        params = {**ready.params, **trained.describe("streaming", chunk)}
        params = {**params, **self._params, "num_streams": self._plan.num_streams}
        cells = self._cells(
            f"streaming-{chunk.ms}ms",
            RunInfo("", "streaming", ready.name.method, params),
            partial(self._stream, path, ready.search),
        )
        in_training = chunk.frames in trained.config.chunk.train_frames
        return pool(cells, self._latency(cells, path), chunk.ms, in_training)

    def _full_cells(self) -> list[Cell]:
        same = bool(find(self._method).grid)  # others differ in streams and whole utterances
        ready = self._setup.offline("full", self._method if same else DEFAULT, None if same else ())
        info = RunInfo("", "full", ready.name.method, {**ready.params, **self._params})
        return self._cells("full", info, partial(self._whole, ready.search))

    def _cells(self, name: str, info: RunInfo, decode: Decode) -> list[Cell]:
        """One cell per split."""
        folder = identity_of(self._setup.config.data_dir)
        return [
            obtain(
                self._out / name,
                info._replace(split=split, scoring=scoring_of(self._data.folder, split, folder)),
                {utterance.id: utterance.text for utterance in self._utterances[split]},
                decode,
            )
            for split in self._plan.splits
        ]

    def _stream(self, path: StreamingPath, search: OnlineSearch, info: RunInfo) -> Made:
        utterances = self._utterances[info.split]
        name = f"{path.chunk_samples * 1000 // path.sample_rate} ms {info.split}"
        progress = Progress(name, "utterances", len(utterances))
        run = decode_streams(
            utterances,
            path,
            search,
            self._setup.trained.detokenise,
            self._config,
            watcher=Watcher(on_final=lambda _: progress.add(1)),
        )
        summary = streaming_summary(info, run, path)
        progress.close(describe(summary))
        return Made(run.hypotheses, summary)

    def _whole(self, search: OfflineSearch, info: RunInfo) -> Made:
        utterances = self._utterances[info.split]
        progress = Progress(f"full {info.split}", "utterances", len(utterances))
        decoded = decode_batches(
            self._data.split_batches(info.split),
            self._setup.hear("full"),
            search,
            self._setup.trained.detokenise,
            lambda hypotheses: progress.add(len(hypotheses)),
        )
        summary = offline_summary(info, decoded)
        progress.close(describe(summary))
        return Made(shown_at_the_end(decoded.hypotheses, utterances), summary)

    def _latency(self, cells: Sequence[Cell], path: StreamingPath) -> dict[str, Any]:
        """Of all splits together."""
        hypotheses = [item for cell in cells for item in cell.hypotheses]
        return latency_summary(StreamingRun(hypotheses, 0.0, 0.0, 1, self._config), path)


def shown_at_the_end(
    hypotheses: Sequence[Hypothesis], utterances: Sequence[Utterance]
) -> list[Hypothesis]:
    """Offline results as a user would see them: the whole text when the sentence has ended."""
    words = {utterance.id: utterance.words for utterance in utterances}
    return [
        item._replace(
            words=words[item.id],
            emissions=(Emission(item.text, item.duration, 0.0, item.duration),)[: bool(item.text)],
        )
        for item in hypotheses
    ]
