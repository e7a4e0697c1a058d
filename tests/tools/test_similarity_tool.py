"""tools/similarity.py: its losses are those of training, and its matrices those of sp-KD."""

import tomllib
from pathlib import Path

import pytest
import torch
from bench_tiny import TINY

pytest.importorskip("lhotse")
pytest.importorskip("sentencepiece")

from similarity import Measured, draw, measure

from dualasr_lib.core.config import from_dict
from dualasr_lib.data.batch import Batch, Example, collate
from dualasr_lib.model.distillation import BranchDims, DistillationConfig, Widths, build_distiller
from dualasr_lib.model.joint import JointModel, ModelConfig, Targets
from dualasr_lib.model.zipformer.streaming import ChunkSpec

CHUNK = ChunkSpec(frames=16, left=64)


@pytest.fixture(scope="module")
def model() -> JointModel:
    torch.manual_seed(3)
    config = from_dict(ModelConfig, tomllib.loads(TINY)["model"])
    return JointModel(config, DistillationConfig(), 9, sos_eos=1).eval()


def batch_of(size: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return collate(
        [
            Example(
                id=f"u{i}",
                text="",
                duration=1.0,
                features=torch.randn(90 + 10 * i, 20, generator=generator),
                tokens=tuple(range(2, 5 + i)),
            )
            for i in range(size)
        ]
    )


@pytest.mark.parametrize("items", ["utterance", "frame"])
def test_losses_are_those_of_training(model: JointModel, items: str) -> None:
    batches = [batch_of(3, 1), batch_of(2, 2)]
    found = measure(model, batches, CHUNK)
    dims = model.encoders.output_dims
    config = from_dict(
        DistillationConfig, {"items": items, "encoder_weight": 1, "head_weights": {"attention": 1}}
    )
    decoder = Widths(model.config.heads.attention.dim, model.config.heads.attention.dim)
    encoder = Widths(full=dims["full"], streaming=dims["streaming"])
    distiller = build_distiller(config, BranchDims(encoder=encoder, heads={"attention": decoder}))
    sums = torch.zeros(2)
    with torch.no_grad():
        for batch in batches:
            targets = Targets(batch.tokens, batch.token_lens)
            reading = model.read(batch.features, batch.feature_lens, targets, CHUNK)
            views = model.views(reading)
            losses = distiller(views["full"], views["streaming"])
            sums += torch.stack([losses.encoder, losses.heads["attention"]])
    names = [f"{part}_{items}" for part in ("encoder", "attention")]
    assert [found.losses[name] for name in names] == pytest.approx((sums / 2).tolist(), rel=1e-5)
    assert min(found.losses.values()) > 0


def test_matrices_are_of_the_fullest_batch(model: JointModel) -> None:
    found = measure(model, [batch_of(2, 2), batch_of(3, 1)], CHUNK)
    for matrix in found.encoder.values():
        assert matrix.shape == (3, 3)
        torch.testing.assert_close(matrix.norm(dim=1), torch.ones(3))
    gap = (found.encoder["full"] - found.encoder["streaming"]).square().mean()
    alone = measure(model, [batch_of(3, 1)], CHUNK).losses["encoder_utterance"]
    assert float(gap) == pytest.approx(alone, rel=1e-4)


def test_an_empty_split_is_an_error(model: JointModel) -> None:
    with pytest.raises(ValueError, match="at least one utterance"):
        measure(model, [], CHUNK)


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    one = Measured({}, {"streaming": torch.eye(4), "full": torch.full((4, 4), 0.5)})
    draw(["a", "b"], [one, one], tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
