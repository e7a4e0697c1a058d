"""Experiment: what is trained and logged for every choice of branches, and that validation says the
same twice."""

import json
import logging
import pickle
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("lhotse")
pytest.importorskip("sentencepiece")

from dualasr_lib import experiment
from dualasr_lib.configuration import ChunkConfig, ExperimentConfig, build_model
from dualasr_lib.core.config import from_dict, to_dict
from dualasr_lib.data.batch import Batch, Example, collate
from dualasr_lib.data.folder import DataFolder, SplitInfo, SplitUse, TokensInfo, UnitName
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.experiment import Experiment, draw_chunk
from dualasr_lib.features.fbank import FbankConfig
from dualasr_lib.model.attention_decoder import DecoderConfig
from dualasr_lib.model.distillation import DistillationConfig
from dualasr_lib.model.heads.registry import HeadsConfig
from dualasr_lib.model.joint import JointModel, LossConfig, Targets
from dualasr_lib.model.model_config import Branch, ModelConfig
from dualasr_lib.model.zipformer.attention import AttentionConfig
from dualasr_lib.model.zipformer.layer import LayerConfig
from dualasr_lib.model.zipformer.stacks import StackConfig
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.model.zipformer.subsampling import SubsamplingConfig
from dualasr_lib.training.contract import Share
from dualasr_lib.training.distributed import World
from dualasr_lib.training.fit_config import FitConfig

CPU = torch.device("cpu")
BRANCHES: tuple[tuple[Branch, ...], ...] = (("streaming", "full"), ("streaming",), ("full",))
SIZES = (3, 5, 2)  # utterances of the validation batches
each_choice = pytest.mark.parametrize("branches", BRANCHES)


def batch(count: int, seed: int, frames: int = 80) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    lens = torch.randint(frames // 2, frames + 1, (count,), generator=generator).tolist()

    def features(num_frames: int) -> Tensor:
        """Noise around a spectrum of its own: noise alone makes all utterances alike."""
        spectrum = 3.0 * torch.randn(80, generator=generator)
        return spectrum + torch.randn(num_frames, 80, generator=generator)

    return collate(
        [Example(f"u{seed}-{i}", "あい", n / 100, features(n), (4, 5)) for i, n in enumerate(lens)]
    )


class Batches:
    """Two training batches an epoch."""

    def set_epoch(self, epoch: int) -> None:
        pass

    def __iter__(self) -> Iterator[Batch]:
        return iter([batch(2, 1), batch(2, 2)])

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: object) -> None:
        pass


class Data:
    """In place of the DataModule."""

    def __init__(self, *_: object) -> None:
        pass

    def refused(self) -> tuple[()]:
        return ()

    def train_batches(self, seed: int) -> Batches:
        return Batches()

    def valid_batches(self, rank: int = 0, size: int = 1) -> Iterator[Batch]:
        batches = (batch(count, 10 + i) for i, count in enumerate(SIZES))
        return islice(batches, rank, None, size)


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(experiment, "DataModule", Data)
    Tokenizer.train(["あいうえお", "かきくけこ"]).save(tmp_path / "lang")
    describe(tmp_path, FbankConfig())
    return tmp_path


def describe(
    data_dir: Path, features: FbankConfig, units: tuple[UnitName, ...] = ("character",)
) -> None:
    """Writes data.json."""
    uses: tuple[SplitUse, ...] = ("train", "valid")
    splits = [SplitInfo(name=use, use=use, cuts="") for use in uses]
    DataFolder(
        corpus="tiny", language="ja", normaliser="none", units=units, features=to_dict(features),
        splits=tuple(splits), tokens=TokensInfo(kind="char", vocab_size=13),
    ).write(data_dir)  # fmt: skip


def config(branches: tuple[Branch, ...]) -> ExperimentConfig:
    attention = AttentionConfig(heads=2, query_head_dim=8, value_head_dim=4, position_dim=8)
    layer = LayerConfig(dim=16, feedforward=16, kernel=7, attention=attention)
    model = ModelConfig(
        branches=branches,
        subsampling=SubsamplingConfig(channels=(2, 3, 4)),
        streaming=(StackConfig(layers=1, downsampling=2, layer=layer),),
        full=(StackConfig(layers=1, layer=layer),),
        heads=HeadsConfig(attention=DecoderConfig(layers=1, dim=16, heads=2, feedforward=16)),
    )
    kd = DistillationConfig(encoder_weight=1.0, head_weights={"attention": 1.0})
    return ExperimentConfig(
        model=model,
        loss=LossConfig(distillation=kd),
        chunk=ChunkConfig(train_frames=(8, 16)),
        training=FitConfig(max_steps=4, log_every=1, average_period=2),
    )


def made(data_dir: Path, branches: tuple[Branch, ...]) -> tuple[Experiment, JointModel]:
    torch.manual_seed(0)
    found = Experiment(config(branches), data_dir)
    return found, build_model(found.config, found.tokenizer)


@each_choice
def test_two_evaluations_give_identical_numbers(
    data_dir: Path, branches: tuple[Branch, ...]
) -> None:
    found, model = made(data_dir, branches)
    model.eval()
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)  # nothing may be drawn
        with torch.no_grad():
            results.append(found.validate(model))
    a, b = results
    assert a.scores == b.scores and a.texts == b.texts
    gaps = {
        f"similarity_gap_{p}_{i}" for p in ("encoder", "attention") for i in ("utterance", "frame")
    }
    expected = {f"cer_{branch}" for branch in branches} | {"loss"}
    expected |= {f"loss_{part}{b}" for part in ("", "ctc_", "attention_") for b in branches}
    assert set(a.scores) == expected | (gaps if len(branches) == 2 else set())
    assert all(a.scores[name] > 0 for name in gaps & set(a.scores))
    assert set(a.texts) == {f"examples_{branch}" for branch in branches}
    assert a.images.keys() == b.images.keys()
    assert all(torch.equal(a.images[name].values, b.images[name].values) for name in a.images)


@each_choice
@pytest.mark.parametrize("size", [2, 3, 5])
def test_ranks_that_share_a_validation_find_what_one_finds(
    data_dir: Path, branches: tuple[Branch, ...], size: int
) -> None:
    """More ranks than batches, too: the last has none."""
    found, model = made(data_dir, branches)
    model.eval()
    parts: list[Any] = []

    def gather(part: Any) -> list[Any]:
        parts.append(pickle.loads(pickle.dumps(part)))  # as torch sends it
        return [*parts]

    with torch.no_grad():
        alone = found.validate(model, 2)
        for rank in range(size):  # the last sees the parts of all
            shared = found.validate(model, 2, Share(rank, size, gather))
    assert (shared.scores, shared.texts) == (alone.scores, alone.texts)
    assert shared.images.keys() == alone.images.keys()
    for name, image in alone.images.items():
        assert torch.equal(shared.images[name].values, image.values)


def test_losses_of_a_validation_are_those_of_training(data_dir: Path) -> None:
    """Mean over the tokens of all batches, as `objective` has it for one, chunk as in decoding."""
    found, model = made(data_dir, ("streaming", "full"))
    model.eval()
    weights, chunk = found.config.loss, found.config.chunk.decoding
    sums = dict.fromkeys(
        ("ctc_streaming", "ctc_full", "attention_streaming", "attention_full"), 0.0
    )
    tokens = 0.0
    with torch.no_grad():
        scores = found.validate(model).scores
        for item in Data().valid_batches():
            targets = Targets(item.tokens, item.token_lens)
            losses = model(item.features, item.feature_lens, targets, chunk)
            tokens += float(losses.num_tokens)
            for name in sums:
                head, _, branch = name.partition("_")
                sums[name] += float(losses.heads[head][branch])
    for name, total in sums.items():
        assert scores[f"loss_{name}"] == pytest.approx(total / tokens, rel=1e-5)
    for branch, weight in (("streaming", weights.streaming), ("full", weights.full)):
        heads = sum(weights.heads[h] * sums[f"{h}_{branch}"] for h in ("ctc", "attention"))
        assert scores[f"loss_{branch}"] == pytest.approx(weight * heads / tokens, rel=1e-5)
    parts = scores["loss_streaming"] + scores["loss_full"]
    assert scores["loss"] == pytest.approx(parts, rel=1e-5)


def test_each_turn_shows_other_texts_and_the_worst(data_dir: Path) -> None:
    found, model = made(data_dir, ("full",))
    seen = []
    for turn in range(1, 5):
        with torch.no_grad():
            table = found.validate(model.eval(), turn).texts["examples_full"]
        rows = [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()[2:]]
        seen += [name for why, name, *_ in rows if why == "next in turn"]
        errors = [int(count.split()[0]) for why, _, count, *_ in rows if why == "most errors"]
        assert len(errors) == 3 and errors == sorted(errors, reverse=True)
    assert len(set(seen)) == sum(SIZES)


def test_every_value_of_the_log_is_described(data_dir: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = Experiment(config(("streaming", "full")), data_dir)
    found.fit(found.run(data_dir / "exp", World()), CPU)
    board = events.EventAccumulator(str(data_dir / "exp" / "tensorboard"))
    board.Reload()
    names = board.Tags()["scalars"]
    assert {"train/loss", "valid/loss", "valid/loss_ctc_full", "train/learning_rate"} <= {*names}
    said = {name: board.summary_metadata[name].summary_description for name in names
            if name in board.summary_metadata}  # fmt: skip
    assert [name for name in names if len(said.get(name, "")) < 15] == []


def test_images_are_those_of_the_batch_with_the_most_utterances(data_dir: Path) -> None:
    found, model = made(data_dir, ("streaming", "full"))
    with torch.no_grad():
        images = found.validate(model.eval()).images
    sides = [
        f"{part}_{role}" for part in ("encoder", "attention") for role in ("teacher", "student")
    ]
    assert set(images) == {f"similarity/{side}" for side in sides}
    for image in images.values():
        assert image.values.shape == (max(SIZES), max(SIZES))
        assert float(image.values.abs().max()) <= image.high * 1.0001 and image.low == -image.high


def test_a_single_branch_has_no_images(data_dir: Path) -> None:
    for branch in ("streaming", "full"):
        found, model = made(data_dir, (branch,))
        with torch.no_grad():
            assert found.validate(model.eval()).images == {}


@each_choice
def test_terms_are_those_of_the_branches(data_dir: Path, branches: tuple[Branch, ...]) -> None:
    found, model = made(data_dir, branches)
    result = found.objective(model, batch(4, 1))
    expected = {f"{kind}_{b}" for kind in ("ctc", "attention") for b in branches}
    expected.add("impossible_utterances")
    if len(branches) == 2:
        expected |= {"distillation_encoder", "distillation_attention"}
    parts = [*branches, *(n for n in sorted(expected) if n.startswith("distillation"))]
    expected |= {f"loss_share/{part}" for part in parts}
    if "streaming" in branches:
        expected |= {"chunk_frames", "chunk_share/8", "chunk_share/16"}
    assert set(result.terms) == expected
    assert result.weight == 12.0 and bool(result.loss.isfinite())
    loss_shares = [float(result.terms[f"loss_share/{part}"].sum) for part in parts]
    assert sum(loss_shares) == pytest.approx(1.0) and min(loss_shares) > 0
    if "streaming" in branches:
        shares = {n: float(result.terms[f"chunk_share/{n}"].sum) for n in (8, 16)}
        assert shares[int(float(result.terms["chunk_frames"].sum))] == sum(shares.values()) == 1.0


def test_utterances_without_an_alignment_are_named_once(
    data_dir: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "_NAMES", 2)
    found, model = made(data_dir, ("streaming", "full"))
    long = Example("too-long", "", 0.1, torch.randn(9, 80), (4, 4, 5, 5, 4))  # 3 encoder frames
    good = Example("good", "", 0.8, torch.randn(80, 80), (4, 5))
    with caplog.at_level(logging.WARNING, logger="dualasr_lib.experiment"):
        for name in ("too-long", "too-long", "b", "c", "d"):
            result = found.objective(model, collate([good, long._replace(id=name)]))
            assert float(result.terms["impossible_utterances"].sum) == 1.0
            assert bool(result.loss.isfinite())
    messages = [record.getMessage() for record in caplog.records]
    assert [("too-long" in m, " b " in m, "not named" in m) for m in messages] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]


@each_choice
def test_a_run_trains_logs_and_validates(data_dir: Path, branches: tuple[Branch, ...]) -> None:
    found = Experiment(config(branches), data_dir)
    run = found.run(data_dir / "exp", World())
    assert found.fit(run, CPU).finished
    lines = [json.loads(line) for line in (data_dir / "exp" / "log.jsonl").read_text().splitlines()]
    logged = set().union(*lines)
    for branch in ("streaming", "full"):
        there = branch in branches
        assert (f"train/ctc_{branch}" in logged) == (f"valid/cer_{branch}" in logged) == there
    assert ("train/distillation_encoder" in logged) == (len(branches) == 2)
    assert ("train/chunk_frames" in logged) == ("streaming" in branches)


@pytest.mark.parametrize(
    ("frames", "left", "expected"),
    [(16, 100, 96), (16, 112, 112), (16, 127, 112), (64, 100, 64), (64, 16, 64), (8, 100, 96)],
)
def test_left_contexts_of_training_are_whole_chunks(frames: int, left: int, expected: int) -> None:
    """Rounded down, but never to nothing."""
    chunk = draw_chunk(ChunkConfig(train_frames=(frames,), train_left=(left,)))
    assert chunk == ChunkSpec(frames=frames, left=expected)


@pytest.mark.parametrize(
    ("left_ms", "expected"), [(1, 16), (320, 16), (321, 32), (1000, 64), (2560, 128)]
)
def test_left_contexts_in_milliseconds_are_whole_chunks(left_ms: int, expected: int) -> None:
    """Rounded up: what was asked for is heard."""
    assert ChunkConfig(ms=320, left_ms=left_ms).decoding == ChunkSpec(frames=16, left=expected)


@pytest.mark.parametrize(("full", "told"), [(["ctc"], True), (["ctc", "attention"], False)])
def test_a_distillation_of_nothing_is_told(
    data_dir: Path, caplog: pytest.LogCaptureFixture, full: list[str], told: bool
) -> None:
    values = to_dict(config(("streaming", "full")))
    values["model"]["heads"]["full"] = full
    values["training"]["max_steps"] = 1
    found = Experiment(from_dict(ExperimentConfig, values), data_dir)
    with caplog.at_level(logging.WARNING, logger="dualasr_lib.experiment"):
        found.fit(found.run(data_dir / "exp", World()), CPU)
    assert any("head_weights.attention is unused" in m for m in caplog.messages) == told


def test_ctc_loss_is_a_section() -> None:
    assert ExperimentConfig(training=FitConfig(max_steps=1)).ctc_loss.implementation == "torch"
    values = {"training": {"max_steps": 1}, "ctc_loss": {"delay_penalty": 0.1}}
    with pytest.raises(ValueError, match="config section 'ctc_loss': delay_penalty must be 0"):
        from_dict(ExperimentConfig, values)


def test_the_loss_of_k2_gets_its_settings(data_dir: Path) -> None:
    pytest.importorskip("k2")
    values = to_dict(config(("streaming", "full")))
    losses = {}
    for name, section in {
        "torch": {"implementation": "torch"},
        "k2": {"implementation": "k2"},
        "delayed": {"implementation": "k2", "delay_penalty": 0.1},
    }.items():
        found = Experiment(from_dict(ExperimentConfig, values | {"ctc_loss": section}), data_dir)
        torch.manual_seed(0)
        model = build_model(found.config, found.tokenizer).eval()
        terms = found.objective(model, batch(2, 1)).terms
        losses[name] = {b: float(terms[f"ctc_{b}"].sum) for b in ("streaming", "full")}
    assert losses["k2"] == pytest.approx(losses["torch"], rel=1e-3)
    assert losses["delayed"]["full"] == losses["k2"]["full"]  # only the streaming branch hurries
    assert losses["delayed"]["streaming"] != pytest.approx(losses["k2"]["streaming"], rel=1e-3)


def test_chunks_are_checked_for_a_streaming_branch_only() -> None:
    values = to_dict(config(("streaming",)))
    values["chunk"]["train_frames"] = [9]
    with pytest.raises(ValueError, match="multiple of each stack's downsampling"):
        from_dict(ExperimentConfig, values)
    values["model"]["branches"] = ["full"]
    from_dict(ExperimentConfig, values)
