"""Small joint models of every kind, and a batch for them."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dualasr_lib.model.attention_decoder import DecoderConfig
from dualasr_lib.model.distillation import DistillationConfig
from dualasr_lib.model.heads.ctc import CtcHeadConfig
from dualasr_lib.model.heads.registry import HeadsConfig
from dualasr_lib.model.heads.transducer import TransducerHeadConfig
from dualasr_lib.model.joint import JointModel, Targets
from dualasr_lib.model.model_config import Branch, IntegrationName, ModelConfig
from dualasr_lib.model.transducer.settings import TransducerConfig
from dualasr_lib.model.zipformer.attention import AttentionConfig
from dualasr_lib.model.zipformer.layer import LayerConfig
from dualasr_lib.model.zipformer.scheduled import set_step
from dualasr_lib.model.zipformer.stacks import StackConfig
from dualasr_lib.model.zipformer.streaming import ChunkSpec
from dualasr_lib.model.zipformer.subsampling import SubsamplingConfig

__all__ = [
    "ALL_BRANCHES",
    "CHUNK",
    "FEATURES",
    "INTEGRATIONS",
    "SHARING",
    "VOCAB",
    "Input",
    "heads_config",
    "joint_model",
    "make_batch",
    "model_config",
    "stack",
    "stir",
]

VOCAB = 11
FEATURES = 20
CHUNK = ChunkSpec(frames=8, left=16)
INTEGRATIONS: tuple[IntegrationName, ...] = ("cascaded", "parallel", "shared")
SHARING = {"separate": (), "shared": ("ctc", "attention")}
ALL_BRANCHES: tuple[tuple[Branch, ...], ...] = (("streaming", "full"), ("streaming",), ("full",))


class Input(NamedTuple):
    """A batch as `JointModel.forward` takes it."""

    features: Tensor
    lens: Tensor
    targets: Targets


def stack(downsampling: int = 1, dim: int = 16, dropout: float = 0.0) -> StackConfig:
    """One layer of two heads."""
    attention = AttentionConfig(heads=2, query_head_dim=8, value_head_dim=4, position_dim=8)
    layer = LayerConfig(dim=dim, feedforward=16, kernel=7, attention=attention, dropout=dropout)
    return StackConfig(layers=1, downsampling=downsampling, layer=layer)


def heads_config(dropout: float = 0.0, **options: Any) -> HeadsConfig:
    """Small heads; `options` are fields of `HeadsConfig`."""
    decoder = DecoderConfig(layers=1, dim=16, heads=2, feedforward=16, dropout=dropout)
    small: dict[str, Any] = {
        "ctc": CtcHeadConfig(dropout=dropout),
        "attention": decoder,
        "transducer": TransducerHeadConfig(sizes=TransducerConfig(dim=16, joiner_dim=16)),
    }
    return HeadsConfig(**(small | options))


def model_config(dropout: float = 0.0, heads: Any = None, **options: Any) -> ModelConfig:
    """Two stacks at 50 and 12.5 Hz, then two of the full branch."""
    wanted: dict[str, Any] = {
        "num_features": FEATURES,
        "subsampling": SubsamplingConfig(channels=(2, 3, 4), dropout=dropout),
        "streaming": (stack(dropout=dropout), stack(4, dropout=dropout)),
        "full": (stack(dropout=dropout), stack(2, dropout=dropout)),
        "heads": heads_config(dropout, **(heads or {})),
    }
    return ModelConfig(**(wanted | options))


def joint_model(
    distillation: DistillationConfig | None = None, seed: int = 3, **options: Any
) -> JointModel:
    """A model with fresh weights; `options` are fields of `ModelConfig`, or `dropout`; `heads` is
    a dict of fields of `HeadsConfig`.
    """
    torch.manual_seed(seed)
    kd = distillation or DistillationConfig(encoder_weight=1.0, head_weights={"attention": 1.0})
    return JointModel(model_config(**options), kd, VOCAB, sos_eos=1)


def stir(module: nn.Module, seed: int = 0) -> None:
    """Weights far from their initial values, schedules at their end: no path stays hidden."""
    generator = torch.Generator().manual_seed(seed)
    set_step(module, 1_000_000)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
            elif parameter.dim() == 1:
                parameter.add_(0.1 * noise)


def make_batch() -> Input:
    """Three utterances, the last without text."""
    generator = torch.Generator().manual_seed(4)
    features = torch.randn(3, 70, FEATURES, generator=generator)
    tokens = torch.tensor([[3, 3, 4, 5], [6, 7, 0, 0], [0, 0, 0, 0]])
    return Input(features, torch.tensor([70, 33, 9]), Targets(tokens, torch.tensor([4, 2, 0])))
