"""A checkpoint with random weights that say many different things of noise."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dualasr_lib.configuration import ExperimentConfig, build_model
from dualasr_lib.core.checkpoint import Checkpoint, file_name, save
from dualasr_lib.core.config import to_dict
from dualasr_lib.data.batch import Batch
from dualasr_lib.data.datamodule import DataModule
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.decoding.recogs import Recognised, read_recogs
from dualasr_lib.model.attention_decoder import DecoderConfig
from dualasr_lib.model.heads.ctc import CtcHead
from dualasr_lib.model.heads.registry import HeadsConfig
from dualasr_lib.model.heads.transducer import TransducerHead, TransducerHeadConfig
from dualasr_lib.model.joint import JointModel
from dualasr_lib.model.losses import LossConfig
from dualasr_lib.model.model_config import ModelConfig
from dualasr_lib.model.transducer.settings import TransducerConfig
from dualasr_lib.model.zipformer.attention import AttentionConfig
from dualasr_lib.model.zipformer.layer import LayerConfig
from dualasr_lib.model.zipformer.stacks import StackConfig
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.model.zipformer.subsampling import SubsamplingConfig
from dualasr_lib.training.fit_config import FitConfig

__all__ = ["experiment", "recogs_of", "summary_of"]


def experiment(data: Path, folder: Path, heads: tuple[str, ...]) -> Path:
    """A folder with a model of both branches, each with these heads."""
    torch.manual_seed(5)
    attention = AttentionConfig(heads=2, query_head_dim=8, value_head_dim=4, position_dim=8)
    stack = StackConfig(
        layers=1, layer=LayerConfig(dim=16, feedforward=16, kernel=7, attention=attention)
    )
    model = ModelConfig(
        subsampling=SubsamplingConfig(channels=(2, 3, 4)),
        streaming=(stack,),
        full=(stack,),
        heads=HeadsConfig(
            streaming=heads,
            full=heads,
            attention=DecoderConfig(layers=1, dim=16, heads=2, feedforward=16),
            transducer=TransducerHeadConfig(sizes=TransducerConfig(dim=8, joiner_dim=16)),
        ),
    )
    loss = LossConfig(heads=dict.fromkeys(heads, 1.0))
    config = ExperimentConfig(model=model, loss=loss, training=FitConfig(num_epochs=1))
    tokenizer = Tokenizer.load(data / "lang")
    joint = build_model(config, tokenizer)
    with torch.no_grad():
        for parameter in joint.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn_like(parameter) * parameter[0].numel() ** -0.5)
        _spread(joint, next(iter(DataModule(config.data, data, tokenizer).split_batches("valid"))))
    folder.mkdir()
    checkpoint = Checkpoint(
        step=1, epoch=1, model=joint.state_dict(), average={}, average_count=0,
        config=to_dict(config), training={}, fingerprints={"tokenizer": tokenizer.fingerprint},
    )  # fmt: skip
    save(checkpoint, folder / file_name(1, None))
    return folder


def _spread(joint: JointModel, batch: Batch) -> None:
    """Makes all tokens equally likely in the mean, and frames differ."""
    joint.eval()
    chunk = ChunkSpec.from_ms(320, 640)
    for branch, encoded in joint.encode(batch.features, batch.feature_lens, chunk).items():
        frames = torch.cat([h[:n] for h, n in zip(encoded.h, encoded.lens.tolist())])
        for head in joint.heads_of(branch).values():
            if isinstance(head, CtcHead):
                _spread_layer(head.projection, frames)
                head.projection.bias[0] += 4.0
            elif isinstance(head, TransducerHead):
                joiner = head.transducer.joiner
                _spread_layer(joiner.encoder, frames)
                joiner.output.weight.mul_(4.0)
                joiner.output.bias.zero_()
                joiner.output.bias[0] += 8.0


def _spread_layer(layer: torch.nn.Linear, frames: Tensor) -> None:
    layer.weight.mul_(4.0 / (frames - frames.mean(dim=0)).norm(dim=1).mean())
    layer.weight.mul_(frames.shape[1] ** 0.5)
    layer.bias.copy_(-(layer.weight @ frames.mean(dim=0)))


def summary_of(folder: Path, split: str = "eval1") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"summary-{split}.json").read_text("utf-8"))
    return found


def recogs_of(folder: Path) -> list[Recognised]:
    return read_recogs(folder / "recogs-eval1.txt")
