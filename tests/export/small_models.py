"""Models of random weights that say many different tokens, and audio for them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dualasr_lib.configuration import ExperimentConfig, build_model
from dualasr_lib.data.batch import Example, collate
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.decoding.greedy import greedy
from dualasr_lib.features.fbank import Fbank
from dualasr_lib.model.attention_decoder import DecoderConfig
from dualasr_lib.model.heads.ctc import CtcHead
from dualasr_lib.model.heads.registry import HeadsConfig
from dualasr_lib.model.inference import prepare_for_inference
from dualasr_lib.model.joint import Branch
from dualasr_lib.model.model_config import ModelConfig
from dualasr_lib.model.zipformer.attention import AttentionConfig
from dualasr_lib.model.zipformer.layer import LayerConfig
from dualasr_lib.model.zipformer.stacks import StackConfig
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.model.zipformer.subsampling import SubsamplingConfig
from dualasr_lib.recognition.trained_model import TrainedModel
from dualasr_lib.training.fit_config import FitConfig

PUBLISHED = (2, 1, 2, 3)
CHUNK = ChunkSpec(frames=8, left=16)  # 160 ms


def small_model(
    future: tuple[int, ...] = (0, 0, 0, 0),
    channels: tuple[int, ...] = (2, 3, 4),
    **options: Any,
) -> TrainedModel:
    """`options` are fields of `ModelConfig`."""
    torch.manual_seed(5)
    attention = AttentionConfig(heads=2, query_head_dim=8, value_head_dim=4, position_dim=8)
    layer = LayerConfig(dim=16, feedforward=16, kernel=7, attention=attention)
    wide = LayerConfig(dim=24, feedforward=16, kernel=5, attention=attention)
    decoder = DecoderConfig(layers=1, dim=16, heads=2, feedforward=16)
    model = ModelConfig(
        subsampling=SubsamplingConfig(channels=channels, future=future),
        streaming=(
            StackConfig(layers=1, layer=layer),
            StackConfig(layers=2, downsampling=4, layer=wide),
        ),
        full=(
            StackConfig(layers=1, layer=layer),
            StackConfig(layers=1, downsampling=2, layer=layer),
        ),
        heads=HeadsConfig(attention=decoder),
        **options,
    )
    config = ExperimentConfig(model=model, training=FitConfig(num_epochs=1))
    tokenizer = Tokenizer.train(["あいうえお", "かきくけこ"])
    joint = build_model(config, tokenizer).eval()
    with torch.no_grad():
        for name, weight in joint.encoders.named_parameters():
            if weight.ndim == 2:  # far from their small beginnings: all parts are to be heard
                weight.mul_(2.0)
            if name.endswith("edge_scale"):
                weight.mul_(30.0)
    prepare_for_inference(joint)
    trained = TrainedModel(config, joint, tokenizer, torch.device("cpu"), "random weights")
    _make_talkative(trained)
    return trained


def _make_talkative(model: TrainedModel) -> None:
    """CTC heads that read how states differ from their mean, so that every token has its turn."""
    features = Fbank(model.config.features)(noise(48000)[0])
    with torch.no_grad():
        heard = model.model.encode(features[None], torch.tensor([len(features)]), CHUNK)
        for branch, encoded in heard.items():
            head = model.model.head("ctc", branch)
            assert isinstance(head, CtcHead)
            states = encoded.h[0]
            weight = torch.randn_like(head.projection.weight) / states.std(dim=0)
            weight = weight * 3.0 * states.shape[1] ** -0.5
            head.projection.weight.copy_(weight)
            head.projection.bias.copy_(-weight @ states.mean(dim=0))
            head.projection.bias[0] += 1.0  # blank


def noise(*lengths: int) -> list[Tensor]:
    """Audio of these lengths in samples, louder and softer, high and low: (n,) each."""
    generator = torch.Generator().manual_seed(6)
    found = []
    for length in lengths:
        x = torch.randn(length, generator=generator)
        size = -(-length // 800)
        loudness = torch.rand(size, generator=generator).repeat_interleave(800)[:length]
        smooth = torch.rand(size, generator=generator).repeat_interleave(800)[:length]
        found.append(0.3 * loudness**2 * (smooth * x.roll(1) + (1 - 2 * smooth) * x))
    return found


def torch_tokens(
    model: TrainedModel, audio: Tensor, branch: Branch, chunk: ChunkSpec, frames: int | None = None
) -> list[int]:
    """Greedy tokens of the first `frames` encoder frames (None: all); no `<sos/eos>`, `<unk>`."""
    features = Fbank(model.config.features)(audio)
    heard = model.hear(collate([Example("a", "", 0.0, features, ())]), branch, chunk)
    log_probs = heard.log_probs.clone()
    log_probs[:, :, [model.tokenizer.sos_eos_id, model.tokenizer.unk_id]] = -torch.inf
    lens = heard.lens if frames is None else torch.tensor([frames])
    return list(greedy(log_probs, lens)[0].tokens)


def write_tokens(model: TrainedModel, folder: Path) -> Path:
    """The client's token table."""
    path = folder / "tokens.txt"
    path.write_text(model.tokenizer.tokens_txt(), encoding="utf-8")
    return path
