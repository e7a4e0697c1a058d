"""Models of random weights that say many different tokens, and audio for them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dualasr_lib.configuration import ExperimentConfig, build_model
from dualasr_lib.data.batch import Example, collate
from dualasr_lib.data.tokenizer import Tokenizer
from dualasr_lib.decoding.greedy import greedy
from dualasr_lib.features.fbank import Fbank
from dualasr_lib.model.attention_decoder import DecoderConfig
from dualasr_lib.model.heads.ctc import CtcHead
from dualasr_lib.model.heads.registry import HeadsConfig
from dualasr_lib.model.heads.transducer import TransducerHead, TransducerHeadConfig
from dualasr_lib.model.inference import prepare_for_inference
from dualasr_lib.model.joint import Branch
from dualasr_lib.model.model_config import ModelConfig
from dualasr_lib.model.transducer.settings import TransducerConfig
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
    heads: tuple[str, ...] = ("ctc", "attention"),
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
        heads=HeadsConfig(
            streaming=heads,
            full=heads,
            attention=decoder,
            transducer=TransducerHeadConfig(sizes=TransducerConfig(dim=12, joiner_dim=24)),
        ),
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
    """Heads that read how states differ from their mean, so that every token has its turn."""
    features = Fbank(model.config.features)(noise(48000)[0])
    with torch.no_grad():
        heard = model.model.encode(features[None], torch.tensor([len(features)]), CHUNK)
        for branch, encoded in heard.items():
            for head in model.model.heads_of(branch).values():
                if isinstance(head, CtcHead):
                    _read_differences(head.projection, encoded.h[0])
                    head.projection.bias[0] += 1.0  # blank
                if isinstance(head, TransducerHead):
                    _read_differences(head.transducer.joiner.encoder, encoded.h[0])
                    head.transducer.prediction.embedding.weight.normal_()
                    head.transducer.prediction.conv.weight.normal_()
                    head.transducer.joiner.prediction.weight.normal_().mul_(0.5)
                    head.transducer.joiner.output.weight.normal_()
                    head.transducer.joiner.output.bias[0] += 4.0  # blank


def _read_differences(layer: nn.Linear, states: Tensor) -> None:
    """For states (S, C)."""
    weight = torch.randn_like(layer.weight) / states.std(dim=0)
    weight = weight * 3.0 * states.shape[1] ** -0.5
    layer.weight.copy_(weight)
    layer.bias.copy_(-weight @ states.mean(dim=0))


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


def transducer_model(**options: Any) -> TrainedModel:
    """With all three heads."""
    return small_model(heads=("ctc", "attention", "transducer"), **options)


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


def torch_frames(model: TrainedModel, audio: Tensor, branch: Branch, chunk: ChunkSpec) -> Tensor:
    """(S, D) what the joiner reads of the audio."""
    features = Fbank(model.config.features)(audio)
    heard = model.hear(collate([Example("a", "", 0.0, features, ())]), branch, chunk)
    return heard.rows("transducer")[0]


def transducer_tables(model: TrainedModel, branch: Branch) -> dict[str, Tensor]:
    """What searches read of the head, without `<sos/eos>` and `<unk>`."""
    tables = dict(model.tables("transducer", branch))
    bias = tables["output_bias"].clone()
    bias[[model.tokenizer.sos_eos_id, model.tokenizer.unk_id]] = -1e4
    return {**tables, "output_bias": bias}


def write_tokens(model: TrainedModel, folder: Path) -> Path:
    """The client's token table."""
    path = folder / "tokens.txt"
    path.write_text(model.tokenizer.tokens_txt(), encoding="utf-8")
    return path
